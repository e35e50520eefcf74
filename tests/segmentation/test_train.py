from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config, load_config
from neonet3d.engine import loop
from neonet3d.engine.artefact import read_card
from neonet3d.errors import InputError
from neonet3d.segmentation import train
from neonet3d.segmentation.scans import Scan
from neonet3d.segmentation.train import inner_validation, train_segmenter
from neonet3d.types import LabelSchema


class KilledError(Exception):
    """Stands for a power cut."""


def tiny(*overrides: str) -> Config:
    return load_config(
        "demo",
        overrides=[
            "segmenter.network=unet",
            "segmenter.localiser_steps=2",
            "segmenter.channels=[4,8]",
            "segmenter.patch=[12,12,8]",
            "segmenter.loop.steps=4",
            *overrides,
        ],
        seed=0,
    )


def everyone(cohort: Cohort) -> Fold:
    return Fold("fold-0", cohort, cohort.subset([]))


def test_the_card(make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    cohort = make_cohort([0, 1, 0])
    train_segmenter(everyone(cohort), tiny(), tmp_path / "model")
    card = read_card(tmp_path / "model", kind="Segmenter")
    assert card.classes == cohort.schema.names
    assert (card.shape, card.spacing_mm) == ((12, 12, 8), (1, 1, 1))
    assert card.parts["plan"]["network"] == "unet"
    assert card.parts["localiser"] is False
    assert card.parents == {}
    assert card.normaliser is not None
    # A scan to segment has no mask yet, so the reference cannot need one.
    assert card.normaliser.reference == "percentile_99.5"
    assert len(card.training_cases) == 3
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        ".claim",
        "log.jsonl",
        "model.json",
        "model.safetensors",
    }


def test_inner_validation_is_whole_patients(make_cohort: Callable[..., Cohort]) -> None:
    cohort = make_cohort([0, 1] * 10)
    judged = inner_validation(cohort, 0.2, seed=0)
    assert len(judged) == 4
    assert judged == inner_validation(cohort, 0.2, seed=0)
    assert judged != inner_validation(cohort, 0.2, seed=1)
    assert inner_validation(cohort, 0.05, seed=0) == ()
    assert len(inner_validation(cohort.subset(cohort.cases[:4]), 0.9, seed=0)) == 3


def test_validation_patients_do_not_train(
    make_cohort: Callable[..., Cohort], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They choose the weights; no patch of theirs is drawn."""
    cohort, drawn = make_cohort([0, 1] * 5), []

    class Sampler(train.PatchSampler):
        def __init__(self, scans: list[Scan], *others: Any) -> None:
            drawn.extend(scans)
            super().__init__(scans, *others)

    monkeypatch.setattr(train, "PatchSampler", Sampler)
    config = tiny("segmenter.validation_share=0.3", "segmenter.evaluations=2")
    train_segmenter(everyone(cohort), config, tmp_path / "model")
    assert len(drawn) == 7
    facts = read_card(tmp_path / "model").facts
    assert facts["validation_cases"] == 3
    assert 0 <= facts["validation_dice"] <= 1
    assert facts["best_step"] in (2, 4)


def test_no_scan_of_a_patient_who_judges_is_trained_on(
    make_cohort: Callable[..., Cohort], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each patient has a second scan, whose mask is empty, so that it does not judge itself."""
    cohort, drawn = make_cohort([0, 1] * 3), []
    writer = CohortWriter(tmp_path / "c", cohort.schema, outcome_name=None, channel="MR")
    for case in cohort:
        image, mask = case.read_with_mask()
        empty = mask.with_data(np.zeros_like(mask.data))
        writer.add(case.name, image, mask, participant=case.name)
        writer.add(f"{case.name}-again", image, empty, participant=case.name)

    class Sampler(train.PatchSampler):
        def __init__(self, scans: list[Scan], *others: Any) -> None:
            drawn.extend(scans)
            super().__init__(scans, *others)

    monkeypatch.setattr(train, "PatchSampler", Sampler)
    config = tiny("segmenter.validation_share=0.34", "segmenter.evaluations=2")
    train_segmenter(everyone(writer.finish()), config, tmp_path / "model")
    assert read_card(tmp_path / "model").facts["validation_cases"] == 2
    assert len(drawn) == 2 * 4


def test_a_scan_that_shows_no_class_does_not_judge(
    make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    """Its Dice is not defined, and finding nothing there would never be the best."""
    cohort = make_cohort([0, 1] * 3)
    writer = CohortWriter(tmp_path / "c", cohort.schema, outcome_name=None, channel="MR")
    for index, case in enumerate(cohort):
        image, mask = case.read_with_mask()
        empty = mask.with_data(np.zeros_like(mask.data))
        writer.add(case.name, image, mask if index < 3 else empty)
    config = tiny("segmenter.validation_share=0.67", "segmenter.evaluations=2")
    train_segmenter(everyone(writer.finish()), config, tmp_path / "model")
    facts = read_card(tmp_path / "model").facts
    assert facts["validation_cases"] == 2
    assert np.isfinite(facts["validation_dice"])


def test_a_killed_training_ends_in_the_same_bytes(
    make_cohort: Callable[..., Cohort], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold, true_rate, dead = everyone(make_cohort([0, 1])), loop.learning_rate, []

    def dies(step: int, config: object) -> float:
        if step == 2 and not dead:
            dead.append(step)
            raise KilledError
        return true_rate(step, config)  # type: ignore[arg-type]

    train_segmenter(fold, tiny(), tmp_path / "whole")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)
    monkeypatch.setattr(loop, "learning_rate", dies)
    with pytest.raises(KilledError):
        train_segmenter(fold, tiny(), tmp_path / "killed")
    assert (tmp_path / "killed" / ".state.safetensors").is_file()
    assert not (tmp_path / "killed" / "model.json").exists()
    train_segmenter(fold, tiny(), tmp_path / "killed")
    first, second = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert first.read_bytes() == second.read_bytes()
    assert not (tmp_path / "killed" / ".state.safetensors").exists()


def test_what_stands_is_not_trained_again(
    make_cohort: Callable[..., Cohort], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = everyone(make_cohort([0, 1]))
    train_segmenter(fold, tiny("segmenter.loop.steps=1"), tmp_path / "model")

    def never(*args: object, **kwargs: object) -> float:
        raise AssertionError("trained again")

    monkeypatch.setattr("neonet3d.segmentation.train.train_loop", never)
    train_segmenter(fold, tiny("segmenter.loop.steps=1"), tmp_path / "model")
    with pytest.raises(InputError, match="is not empty"):
        train_segmenter(fold, tiny("segmenter.loop.steps=2"), tmp_path / "model")


def test_what_cannot_be_trained_on(make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="case_000: there is no mask"):
        train_segmenter(everyone(make_cohort([0, 1], masks=False)), tiny(), tmp_path / "model")
    writer = CohortWriter(
        tmp_path / "bare", LabelSchema(("background",)), outcome_name=None, channel="MR"
    )
    image = np.random.default_rng(0).normal(9, 1, (9, 9, 9)).astype(np.float32)
    writer.add("a", Volume(image, np.eye(4)), None)
    with pytest.raises(InputError, match="no class beside background"):
        train_segmenter(everyone(writer.finish()), tiny(), tmp_path / "model")
    assert not (tmp_path / "model").exists()
