from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import GRID_MULTIPLE
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config
from neonet3d.engine import loop
from neonet3d.engine.artefact import read_card
from neonet3d.engine.device import SHORTEST_X
from neonet3d.errors import InputError
from neonet3d.generation.train import train_autoencoder, train_generator

PARTS = ("autoencoder", "anatomy", "unet", "controlnet", "refiner", "detail", "calibration")


class KilledError(Exception):
    """Stands for a power cut."""


def weights(folder: Path) -> dict[str, bytes]:
    return {part: (folder / part / "model.safetensors").read_bytes() for part in PARTS}


def everyone(cohort: Cohort) -> Fold:
    return Fold("fold-0", cohort, cohort.subset([]))


def test_each_part_is_a_whole_artefact(trained: Any) -> None:
    files = {p.name for p in trained.folder.rglob("*") if p.is_file()}
    assert files == {".claim", "log.jsonl", "model.json", "model.safetensors"}
    digests = tuple(sorted(case.digest() for case in trained.fold.training))
    for part in PARTS:
        card = read_card(trained.folder / part)
        assert card.training_cases == digests
        assert (card.fold, card.outcome, card.shape) == ("fold-0", "pni", (24, 16, 16))
        assert card.spacing_mm == pytest.approx((2, 2, 2))
    facts = read_card(trained.folder / "autoencoder").facts
    assert np.mean(facts["latent_gain"]) == pytest.approx(1, rel=1e-5)
    assert facts["training_psnr_db"] > 15
    assert len(read_card(trained.folder / "anatomy").facts["explained_variance"]) == 4


def test_what_stands_is_not_trained_again(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: object, **kwargs: object) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr("neonet3d.generation.train.train_loop", never)
    monkeypatch.setattr("neonet3d.generation.mask_train.train_loop", never)
    before = weights(trained.folder)
    train_generator(trained.fold, trained.config, trained.folder)
    assert weights(trained.folder) == before


@pytest.mark.parametrize("deaths", [(1, 5, 9, 13)])
def test_a_killed_training_ends_in_the_same_bytes(
    deaths: tuple[int, ...], trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four trainings of three steps, each killed once in the midst."""
    steps_done = 0
    true_rate = loop.learning_rate

    def dies(step: int, config: Any) -> float:
        nonlocal steps_done
        steps_done += 1
        if steps_done - 1 in deaths:
            raise KilledError
        return true_rate(step, config)

    monkeypatch.setattr(loop, "learning_rate", dies)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    folder = tmp_path / "generator"
    for _ in deaths:
        with pytest.raises(KilledError):
            train_generator(trained.fold, trained.config, folder)
        assert list(folder.rglob(".state.safetensors"))
    train_generator(trained.fold, trained.config, folder)
    assert steps_done == 12 + len(deaths)
    assert weights(folder) == weights(trained.folder)
    assert not list(folder.rglob(".state.safetensors"))


def test_another_seed_is_another_model(trained: Any, train_tiny: Callable[[int], Any]) -> None:
    first, second = weights(trained.folder), weights(train_tiny(1).folder)
    assert all(first[part] != second[part] for part in PARTS)


def test_guidance_without_outcomes_is_refused_before_anything_is_trained(
    patients: Cohort, tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    config = tiny_config(0)
    sampler = config.sampler.model_copy(update={"guidance": 2.0})
    nobody_knows = replace(patients, outcome_name=None)
    with pytest.raises(InputError, match="guidance is of the outcome"):
        train_generator(
            everyone(nobody_knows), config.model_copy(update={"sampler": sampler}), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_needs_a_mask_for_each_case(
    patients: Cohort, tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    masks = {c.name: c.mask_path for c in patients.cases[1:] if c.mask_path is not None}
    partly = patients.with_overlaid_masks(masks, patients.schema)
    with pytest.raises(InputError, match=r"1 training cases of .* \(the first is patient_0\)"):
        train_generator(everyone(partly), tiny_config(0), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_narrow_crop_is_padded_along_x(
    tiny_config: Callable[[int], Config], patients: Cohort, tmp_path: Path
) -> None:
    """The U-Net works at an eighth of the grid; see ``SHORTEST_X``."""
    rng = np.random.default_rng(0)
    writer = CohortWriter(tmp_path / "narrow", patients.schema, outcome_name=None, channel="MR")
    for name in ("a", "b"):
        image = rng.normal(100, 10, (9, 12, 8)).astype(np.float32)
        mask = np.ones(image.shape, np.uint8)
        writer.add(name, Volume(image, np.eye(4)), Volume(mask, np.eye(4)))
    train_autoencoder(everyone(writer.finish()), tiny_config(0), tmp_path / "model")
    shape = read_card(tmp_path / "model").shape
    assert shape == (SHORTEST_X * GRID_MULTIPLE, 16, 8)


def test_losses_are_logged(trained: Any) -> None:
    lines = (trained.folder / "unet" / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [1, 2, 3]
    assert records[0]["stage"] == "fold-0: flow U-Net"
    assert all(np.isfinite(record["loss"]) for record in records)
