from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from neonet3d.classification import train as training
from neonet3d.classification.features import encode_patches, encodings_of
from neonet3d.classification.objective import LABEL_SMOOTHING, LogitObjective
from neonet3d.classification.patten_model import PattenClassifier
from neonet3d.classification.predict import Classifier
from neonet3d.classification.train import train_patten
from neonet3d.classification.train_baseline import train_baseline
from neonet3d.classification.training_set import Draws, inner_folds
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import load_patches
from neonet3d.config import Config, load_config
from neonet3d.engine.artefact import read_card
from neonet3d.engine.loop import DrawBatch
from neonet3d.errors import InputError
from neonet3d.generation.autoencoder import Encoder
from neonet3d.metrics.discrimination import auc
from neonet3d.types import LabelSchema

DRAWS = 40_000


def cases(groups: dict[tuple[int, bool], int]) -> tuple[Tensor, Tensor]:
    """Outcomes and synthetic flags of so many cases of each kind."""
    kinds = [kind for kind, n in groups.items() for _ in range(n)]
    return torch.tensor([y for y, _ in kinds]), torch.tensor([s for _, s in kinds])


def shares(groups: dict[tuple[int, bool], int]) -> tuple[float, dict[int, float], Tensor]:
    """Share of positives, synthetic share within each class, and how often each case is drawn."""
    outcomes, synthetic = cases(groups)
    generator = torch.Generator().manual_seed(0)
    index = Draws.of(outcomes, synthetic, "balanced").rows(DRAWS, generator)
    drawn, flags = outcomes[index], synthetic[index].double()
    per_class = {y: float(flags[drawn == y].mean()) for y in (0, 1)}
    return float(drawn.double().mean()), per_class, torch.bincount(index, minlength=len(outcomes))


def test_classes_are_drawn_one_to_one() -> None:
    positive, synthetic, counts = shares({(0, False): 84, (1, False): 44})
    assert positive == pytest.approx(0.5, abs=0.01)
    assert synthetic == {0: 0, 1: 0}
    assert counts[:84].double().mean() * 84 == pytest.approx(DRAWS / 2, rel=0.02)
    # Within a class every case has the same chance: counts scatter as a Poisson variable.
    for part in (counts[:84].double(), counts[84:].double()):
        assert float(part.var() / part.mean()) == pytest.approx(1, abs=0.5)


def test_being_synthetic_says_nothing_about_the_class() -> None:
    """80 + 10 negative and 30 + 60 positive: both classes draw the mean of 1/9 and 2/3."""
    positive, synthetic, counts = shares(
        {(0, False): 80, (0, True): 10, (1, False): 30, (1, True): 60}
    )
    assert positive == pytest.approx(0.5, abs=0.01)
    for y in (0, 1):
        assert synthetic[y] == pytest.approx((1 / 9 + 2 / 3) / 2, abs=0.012)
    assert int(counts.min()) > 0


def test_the_rare_class_recipe_draws_synthetic_cases_in_one_class() -> None:
    positive, synthetic, counts = shares({(0, False): 80, (1, False): 30, (1, True): 50})
    assert positive == pytest.approx(0.5, abs=0.01)
    assert synthetic[0] == 0
    assert synthetic[1] == pytest.approx(50 / 80, abs=0.012)
    rare = counts[80:].double()  # real or synthetic, each positive case comes as often
    assert float(rare[:30].mean() / rare[30:].mean()) == pytest.approx(1, abs=0.05)


def test_draws_replay() -> None:
    outcomes, synthetic = cases({(0, False): 5, (1, False): 3})
    first, again, other = (
        Draws.of(outcomes, synthetic, "balanced").rows(64, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_objective_is_smoothed_cross_entropy() -> None:
    logit, outcome = torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([0, 1, 0])
    target = torch.tensor([LABEL_SMOOTHING / 2, 1 - LABEL_SMOOTHING / 2, LABEL_SMOOTHING / 2])
    p = torch.sigmoid(logit)
    each = -(target * p.log() + (1 - target) * (1 - p).log())
    found = LogitObjective(nn.Identity(), 0.0)(logit, outcome, torch.ones(3))
    torch.testing.assert_close(found, each.mean())
    weight = torch.tensor([2.0, 0.5, 0.5])
    found = LogitObjective(nn.Identity(), 0.7)(logit - 0.7, outcome, weight)
    torch.testing.assert_close(found, (weight * each).mean())


def test_cases_come_as_they_are_or_are_weighed() -> None:
    outcomes, synthetic = cases({(0, False): 90, (1, False): 30})
    natural, weighted = (Draws.of(outcomes, synthetic, how) for how in ("natural", "weighted"))
    for draws in (natural, weighted):
        index = draws.rows(DRAWS, torch.Generator().manual_seed(0))
        assert float(outcomes[index].double().mean()) == pytest.approx(0.25, abs=0.01)
    assert natural.log_odds == pytest.approx(np.log(1 / 3))
    assert weighted.log_odds == 0
    assert float(weighted.importance.mean()) == pytest.approx(1)
    for y in (0, 1):
        assert float(weighted.importance[outcomes == y].sum()) == pytest.approx(60)
    balanced = Draws.of(outcomes, synthetic, "balanced")
    np.testing.assert_allclose(balanced.weights(), weighted.weights())
    np.testing.assert_allclose(natural.weights(), 1)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_encoder_does_not_move(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    """Parameters and statistics in PattenNet's artefact are the autoencoder's, bit for bit."""
    train_patten(fold, encoder_folder, tiny, tmp_path / "patten")
    before = {k: v for k, v in weights(encoder_folder).items() if k.startswith("encoder.")}
    after = {k: v for k, v in weights(tmp_path / "patten").items() if k.startswith("encoder.")}
    assert set(before) == set(after)
    assert {name.removeprefix("encoder.") for name in after} == set(
        Encoder(tiny.autoencoder).state_dict()
    )
    for name, value in before.items():
        assert value.numpy().tobytes() == after[name].numpy().tobytes(), name


@pytest.mark.parametrize("encoder", ["random", "trainable"])
def test_an_encoder_that_learned_nothing_or_goes_on_learning(
    encoder: str, fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    """Other weights than the frozen one's; what is saved is what predicts."""
    told = {"encoder": encoder, "members": 2, "features": "maps", "readings": ("deep",)}
    settings = tiny.classifier.model_copy(update=told)
    config = tiny.model_copy(update={"classifier": settings})
    train_patten(fold, encoder_folder, config, tmp_path / "patten")
    before, after = weights(encoder_folder), weights(tmp_path / "patten")
    kernel = "encoder.linear.weight"  # starts as principal components, which are large
    moved = float((before[kernel] - after[kernel]).abs().max())
    assert moved > 0.1 if encoder == "random" else 0 < moved < 0.02
    probability = Classifier.load(tmp_path / "patten").predict(fold.held_out)
    assert probability.shape == (4,)
    assert np.isfinite(probability).all()


def test_appearance_factors_need_their_prior(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    alone = tmp_path / "alone" / "autoencoder"
    alone.parent.mkdir()
    alone.symlink_to(encoder_folder)
    with pytest.raises(InputError, match=r"no anatomy prior .* beside the encoder"):
        train_patten(fold, alone, tiny, tmp_path / "patten")
    assert not (tmp_path / "patten").exists()
    without = tiny.classifier.model_copy(update={"features": "maps", "readings": ("deep",)})
    train_patten(fold, alone, tiny.model_copy(update={"classifier": without}), tmp_path / "patten")
    assert read_card(tmp_path / "patten").parts["anatomy_cases"] == 0


def test_the_card_says_what_it_was_built_on(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    train_patten(fold, encoder_folder, tiny, tmp_path / "patten")
    card, parent = read_card(tmp_path / "patten", kind="PattenNet"), read_card(encoder_folder)
    prior = read_card(encoder_folder.parent / "anatomy")
    assert card.parents == {
        "autoencoder": parent.weights_sha256,
        "anatomy": prior.weights_sha256,
    }
    assert card.parts["anatomy_cases"] == len(fold.training)
    assert (card.normaliser, card.grid) == (parent.normaliser, parent.grid)
    assert card.parts["regions"] == ["whole", "liver", "tumour", "shell", "portal_neighbourhood"]
    assert card.training_cases == tuple(sorted(case.digest() for case in fold.training))
    assert not (tmp_path / "patten" / ".state.safetensors").exists()
    names = sorted(path.name for path in (tmp_path / "patten").iterdir())
    assert names == [".claim", "log.jsonl", "model.json", "model.safetensors"]


def test_a_trained_folder_is_left_and_training_repeats_to_the_byte(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    reference = read_card(encoder_folder)
    for name, train in (
        ("patten", lambda out: train_patten(fold, encoder_folder, tiny, out)),
        ("resnet", lambda out: train_baseline(fold, reference.reading, tiny, out)),
    ):
        first, second = tmp_path / name, tmp_path / f"{name}_again"
        train(first)
        stamp = (first / "model.safetensors").stat().st_mtime_ns
        train(first)
        assert (first / "model.safetensors").stat().st_mtime_ns == stamp
        train(second)
        for file in ("model.safetensors", "model.json"):
            assert (first / file).read_bytes() == (second / file).read_bytes()


def test_the_prior_is_that_of_the_real_cases(
    write_patches: Callable[..., Cohort], encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    outcomes = [0, 0, 0, 1, 1, 1]
    synthetic = [False, False, False, False, True, True]
    balanced = write_patches(6, seed=2, outcomes=outcomes, synthetic=synthetic)
    fold = Fold("fold-0", balanced, balanced.subset([]))
    train_patten(fold, encoder_folder, tiny, tmp_path / "patten")
    train_baseline(fold, read_card(encoder_folder).reading, tiny, tmp_path / "resnet")
    expected = pytest.approx(np.log(1 / 3))
    assert float(weights(tmp_path / "patten")["network.prior_logit"]) == expected
    assert float(weights(tmp_path / "resnet")["prior_logit"]) == expected


@pytest.mark.parametrize("outcome", [0, 1])
def test_one_class_only_is_refused(
    outcome: int,
    write_patches: Callable[..., Cohort],
    encoder_folder: Path,
    tiny: Config,
    tmp_path: Path,
) -> None:
    cohort = write_patches(3, seed=3, outcomes=[outcome] * 3)
    fold = Fold("all", cohort, cohort.subset([]))
    with pytest.raises(InputError, match="all of one class"):
        train_patten(fold, encoder_folder, tiny, tmp_path / "patten")
    with pytest.raises(InputError, match="all of one class"):
        train_baseline(fold, read_card(encoder_folder).reading, tiny, tmp_path / "resnet")
    assert not any(tmp_path.iterdir())


def test_an_encoder_that_saw_a_held_out_case_is_refused(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    swapped = Fold("fold-1", fold.held_out, fold.training)
    with pytest.raises(InputError, match="8 of the 8 held-out cases trained this Autoencoder"):
        train_patten(swapped, encoder_folder, tiny, tmp_path / "patten")
    assert not any(tmp_path.iterdir())


def test_an_encoder_of_other_classes_is_refused(
    write_patches: Callable[..., Cohort], encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    schema = LabelSchema(("background", "liver", "hepatic_vein", "tumour"))
    cohort = write_patches(4, seed=4, schema=schema)
    with pytest.raises(InputError, match="Use a model trained on the same classes"):
        train_patten(
            Fold("all", cohort, cohort.subset([])), encoder_folder, tiny, tmp_path / "patten"
        )


def test_a_folder_that_holds_something_else_is_left_alone(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not empty"):
        train_patten(fold, encoder_folder, tiny, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_of_a_held_out_case_is_in_the_weights(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    """Other held-out cases, same bytes."""
    train_patten(fold, encoder_folder, tiny, tmp_path / "patten")
    alone = Fold(fold.name, fold.training, fold.held_out.subset([]))
    train_patten(alone, encoder_folder, tiny, tmp_path / "alone")
    digests = {
        hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest()
        for name in ("patten", "alone")
    }
    assert len(digests) == 1


def test_the_anatomy_belongs_to_the_frozen_encoder() -> None:
    with pytest.raises(InputError, match="belongs to the frozen encoder"):
        load_config("demo", overrides=["classifier.encoder=random"])


def test_a_member_never_saw_what_it_left_out(
    fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    """The cases of a member's rows of a batch are none of the part that it left out."""
    outcomes = torch.from_numpy(fold.training.outcomes)
    patients = [case.participant for case in fold.training]
    parts = inner_folds(outcomes, patients, tiny.classifier.members, seed=tiny.seed)
    batches: list[list[Tensor]] = []

    def remember(objective: nn.Module, draw: DrawBatch, *_: object, **__: object) -> float:
        batches.append(list(draw(torch.Generator().manual_seed(0))))
        return 0.0

    with mock.patch.object(training, "train_loop", remember):
        train_patten(fold, encoder_folder, tiny, tmp_path / "patten")
    residuals, *_ = batches[0]
    model = Classifier.load(tmp_path / "patten").model
    assert isinstance(model, PattenClassifier)
    card = read_card(encoder_folder)
    patches = load_patches(fold.training, *card.reading)
    turns = encodings_of(card.grid, tiny.classifier.encodings, seed=tiny.seed)
    features = encode_patches(
        model.encoder,
        model.anatomy,
        "residual",
        patches,
        fold.training.schema,
        turns,
        shell_mm=tiny.classifier.shell_mm,
        distances=False,
    )
    every = features.levels[0].float()
    for member, rows in enumerate(residuals.chunk(int(parts.max()) + 1)):
        for row in rows:
            (_, case), *others = (every == row).flatten(2).all(2).nonzero().tolist()
            assert not others
            assert parts[case] != member


def test_a_synthetic_set_alone_is_judged_by_itself(
    write_patches: Callable[..., Cohort],
    fold: Fold,
    encoder_folder: Path,
    tiny: Config,
    tmp_path: Path,
) -> None:
    alone = write_patches(6, seed=21, synthetic=[True] * 6)
    train_patten(Fold("all", alone, fold.held_out), encoder_folder, tiny, tmp_path / "patten")
    classifier = Classifier.load(tmp_path / "patten")
    assert classifier.prevalence == pytest.approx(0.5)
    assert classifier.card.parts["judged_cases"] == 6
    assert np.isfinite(classifier.predict(fold.held_out)).all()


def test_parts_hold_both_classes_and_keep_patients_together() -> None:
    outcomes = torch.tensor([0, 1] * 8)
    patients = [f"p{i // 4}" for i in range(16)]
    patients[:2], patients[2:4] = ["a", "b"], ["a", "b"]
    parts = inner_folds(outcomes, patients, 5, seed=0)
    assert len(set(parts.tolist())) == 4  # four patients of each class, not five
    for name in set(patients):
        assert len({int(p) for p, of in zip(parts, patients, strict=True) if of == name}) == 1
    with pytest.raises(InputError, match="one training patient"):
        inner_folds(torch.tensor([0, 0, 1]), ["a", "b", "c"], 2, seed=0)


@pytest.mark.parametrize("kind", ["patten", "resnet"])
def test_a_darker_tumour_is_learnt(
    kind: str, fold: Fold, encoder_folder: Path, tiny: Config, tmp_path: Path
) -> None:
    """Positive tumours are darker; every held-out case is ranked by it."""
    loop = {"steps": 30, "batch_size": 8, "learning_rate": 3e-3}
    section = tiny.classifier if kind == "patten" else tiny.baseline
    section = section.model_copy(update={"loop": section.loop.model_copy(update=loop)})
    if kind == "patten":
        config = tiny.model_copy(update={"classifier": section})
        train_patten(fold, encoder_folder, config, tmp_path / kind)
    else:
        config = tiny.model_copy(update={"baseline": section})
        train_baseline(fold, read_card(encoder_folder).reading, config, tmp_path / kind)
    probability = Classifier.load(tmp_path / kind).predict(fold.held_out)
    assert auc(fold.held_out.outcomes, probability) == 1
