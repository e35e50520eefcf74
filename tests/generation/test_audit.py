from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import load_patches
from neonet3d.generation import audit
from neonet3d.generation.audit import CopyingAudit, audit_copying, case_losses, velocity_loss
from neonet3d.generation.condition import NULL_LABEL, Condition
from neonet3d.generation.train import train_generator
from neonet3d.metrics.interval import wilson
from neonet3d.metrics.memorisation import infer_membership


@pytest.fixture(scope="module")
def divided(
    patients: Cohort, tiny_config: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Fold]:
    """A generator of the first four patients, and its fold."""
    cases = patients.cases
    fold = Fold("fold-0", patients.subset(cases[:4]), patients.subset(cases[4:]))
    folder = tmp_path_factory.mktemp("divided") / "generator"
    return train_generator(fold, tiny_config(0), folder), fold


def copied(cohort: Cohort, root: Path) -> Cohort:
    """Synthetic cases that are real ones over again."""
    writer = CohortWriter(root, cohort.schema, outcome_name="pni", channel="HBP", durable=False)
    for case in cohort:
        image, mask = case.read_with_mask()
        writer.add(case.name, image, mask, outcome=case.outcome, extra={"synthetic": "1"})
    return writer.finish()


def test_losses_are_those_of_the_path_at_half_time(divided: tuple[Any, Fold]) -> None:
    generator, fold = divided
    card = generator.card
    patches = load_patches(fold.training, *card.reading)
    losses = case_losses(generator, patches, seed=0)
    assert losses.shape == (4,)
    assert (losses > 0).all()
    np.testing.assert_array_equal(losses, case_losses(generator, patches, seed=0))
    assert (losses != case_losses(generator, patches, seed=1)).all()
    # A case has the loss that it has alone: noises do not depend on the others.
    alone = replace(
        patches,
        images=patches.images[2:3],
        label_maps=patches.required_label_maps()[2:3],
        outcomes=patches.outcomes[2:3],
        log_scale=patches.log_scale[2:3],
    )
    np.testing.assert_allclose(case_losses(generator, alone, seed=0), losses[2:3], rtol=0.02)


def test_a_velocity_half_a_unit_off_loses_a_quarter(
    divided: tuple[Any, Fold], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, fold = divided
    card = generator.card
    patches = load_patches(fold.training, *card.reading)
    maps = patches.required_label_maps()
    x, y, z = (n // 4 for n in card.grid.shape)
    channels = generator.autoencoder.encoder.latent_mean.numel()
    latents, noise = torch.randn(5, channels, x, y, z).split([4, 1])
    residual = generator.anatomy.residual(latents, maps)
    asked = []

    def perfect(
        x_t: torch.Tensor, t: torch.Tensor, wanted: Condition, _: Any = None
    ) -> torch.Tensor:
        asked.append((x_t, t, wanted))
        return noise - residual + 0.5

    monkeypatch.setattr(generator.unet, "forward", perfect)
    told = Condition.of(torch.tensor([0, 1, -1, 0]), patches.log_scale)
    found = velocity_loss(generator, latents, maps, told, noise[0])
    gain = generator.autoencoder.encoder.latent_gain.mean().item()
    np.testing.assert_allclose(found.numpy(), 0.25 * gain, rtol=1e-3)
    x_t, t, wanted = asked[0]
    assert (t == 0.5).all()
    torch.testing.assert_close(x_t.float(), (residual + noise) / 2, rtol=0.02, atol=0.02)
    assert wanted.label.tolist() == [0, 1, NULL_LABEL, 0]


def test_real_cases_over_again_are_called_copies(divided: tuple[Any, Fold], tmp_path: Path) -> None:
    generator, fold = divided
    copies = audit_copying(generator, fold.training, fold.held_out, copied(fold.training, tmp_path))
    assert copies.copies
    assert copies.copies_of_training is not None
    assert copies.copies_of_training.value == 1
    assert "copies of training patches" in copies.signs
    assert "Warning: the generator copies its training cases" in copies.sentence
    assert (copies.n_training, copies.n_held_out, copies.n_synthetic) == (4, 2, 4)
    assert copies.membership is not None
    assert (copies.membership.auc.n, copies.membership.auc.n_positive) == (6, 4)
    written = json.loads(json.dumps(copies.as_json()))
    assert written["copies"] is True
    assert written["membership"]["auc"]["value"] == copies.membership.auc.value
    assert written["sentence"] == copies.sentence


def test_without_held_out_cases_it_says_so(trained: Any) -> None:
    found = audit_copying(trained.generator, trained.fold.training, trained.fold.held_out)
    assert found.membership is None
    assert not found.copies
    wanted = "needs two training and two held-out patients; there are 6 and 0 cases."
    assert wanted in found.sentence
    assert "No synthetic patches were given" in found.sentence
    assert found.sentence.endswith("nothing is known of copying; hold cases out to see it.")


def test_lesions_of_one_patient_count_once(divided: tuple[Any, Fold]) -> None:
    generator, fold = divided
    cases = [replace(case, participant=case.name) for case in fold.training]
    cases[1] = replace(cases[1], participant=cases[0].participant)
    training = replace(fold.training, cases=tuple(cases))
    found = audit_copying(generator, training, fold.held_out).membership
    assert found is not None
    assert (found.auc.n, found.auc.n_positive) == (5, 3)
    of_cases = case_losses(generator, load_patches(training, *generator.card.reading), seed=0)
    of_patients = [of_cases[:2].mean(), *of_cases[2:]]
    assert found.training_loss.value == pytest.approx(np.mean(of_patients))


def test_cases_on_the_wrong_side_are_refused(divided: tuple[Any, Fold]) -> None:
    generator, fold = divided
    with pytest.raises(ValueError, match="2 of the 2 training cases did not train this generator"):
        audit_copying(generator, fold.held_out, fold.held_out)
    with pytest.raises(ValueError, match="4 of the 4 held-out cases trained this"):
        audit_copying(generator, fold.training, fold.training)


def test_the_verdict_names_what_speaks_of_copying() -> None:
    quiet = CopyingAudit(
        n_training=50,
        n_held_out=50,
        n_synthetic=40,
        membership=infer_membership(np.arange(50.0), np.arange(50.0), 0),
        share_nearer_training=wilson(20, 40),
        expected_share=0.5,
        copies_of_training=wilson(0, 40),
        duplicates=wilson(3, 40),
    )
    assert not quiet.copies
    assert "AUC 0.50 [" in quiet.sentence
    assert "0.50 expected" in quiet.sentence
    assert quiet.sentence.endswith("which is not a proof of privacy.")
    losses = infer_membership(np.arange(50.0), np.arange(50.0) + 20, 0)
    assert replace(quiet, membership=losses).signs == ("membership by loss",)
    assert replace(quiet, share_nearer_training=wilson(38, 40)).signs == ("nearest neighbours",)
    loud = replace(quiet, membership=losses, copies_of_training=wilson(1, 40))
    assert "(membership by loss, copies of training patches)" in loud.sentence
    assert audit.TIME == 0.5
