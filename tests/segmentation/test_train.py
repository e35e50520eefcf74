from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.volume import Volume
from neonet3d.config import PRESETS, Config, SegmenterConfig, load_config
from neonet3d.engine import loop
from neonet3d.engine.artefact import read_card
from neonet3d.engine.device import SHORTEST_X
from neonet3d.errors import InputError
from neonet3d.segmentation.network import size_multiple
from neonet3d.segmentation.train import fit_patch, train_segmenter
from neonet3d.types import LabelSchema, Shape, Triple


class KilledError(Exception):
    """Stands for a power cut."""


def tiny(*overrides: str) -> Config:
    return load_config(
        "demo",
        overrides=[
            "segmenter.channels=[4,8]",
            "segmenter.patch=[12,12,8]",
            "segmenter.loop.steps=4",
            *overrides,
        ],
        seed=0,
    )


def everyone(cohort: Cohort) -> Fold:
    return Fold("fold-0", cohort, cohort.subset([]))


def scan(shape: Shape, spacing_mm: Triple) -> Volume:
    return Volume(np.zeros(shape, np.float32), np.diag([*spacing_mm, 1.0]))


def patch_config(channels: tuple[int, ...], patch: Shape) -> SegmenterConfig:
    values = tiny().segmenter.model_dump() | {"channels": channels, "patch": patch}
    return SegmenterConfig.model_validate(values)


@pytest.mark.parametrize(
    ("channels", "patch", "shapes", "expected"),
    [
        # Multiples of 8, rounded up; no larger than the largest scan needs.
        ((4, 8, 8), (50, 60, 30), [(100, 100, 100)], (56, 64, 32)),
        ((4, 8, 8), (96, 96, 96), [(60, 20, 20), (20, 44, 20)], (64, 48, 24)),
        ((4, 8, 8), (96, 96, 96), [(64, 48, 24)], (64, 48, 24)),
        # Never so narrow that the coarsest grid has less than three voxels along x.
        ((4, 8, 8), (8, 8, 8), [(100, 100, 100)], (24, 8, 8)),
        ((4, 8), (96, 96, 96), [(5, 5, 5)], (12, 8, 8)),
    ],
)
def test_the_patch_fits_network_and_scans(
    channels: tuple[int, ...], patch: Shape, shapes: list[Shape], expected: Shape
) -> None:
    scans = [scan(shape, (1.0, 1.0, 1.0)) for shape in shapes]
    assert fit_patch(patch_config(channels, patch), scans, (1.0, 1.0, 1.0)) == expected


def test_the_patch_is_measured_in_mm() -> None:
    """100 voxels of 0.5 mm are 25 voxels of 2 mm; rounding in a header adds none."""
    scans = [scan((100, 80, 64), (0.5, 0.8, 1.0000001))]
    config = patch_config((4, 8, 8), (96, 96, 96))
    assert fit_patch(config, scans, (2.0, 1.0, 1.0)) == (32, 64, 64)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_stay_off_narrow_grids(preset: str) -> None:
    config = load_config(preset).segmenter
    x, y, z = fit_patch(config, [scan((10, 400, 400), (1.0, 1.0, 1.0))], (1.0, 1.0, 1.0))
    multiple = size_multiple(config)
    assert x // multiple >= SHORTEST_X
    assert y % multiple == z % multiple == x % multiple == 0


def test_the_card(make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    cohort = make_cohort([0, 1, 0])
    train_segmenter(everyone(cohort), tiny(), tmp_path / "model")
    card = read_card(tmp_path / "model", kind="Segmenter")
    assert card.classes == cohort.schema.names
    assert (card.shape, card.spacing_mm) == ((12, 12, 8), (1, 1, 1))
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
    volume = scan((9, 9, 9), (1.0, 1.0, 1.0))
    image = np.random.default_rng(0).normal(9, 1, volume.shape).astype(np.float32)
    writer.add("a", volume.with_data(image), None)
    with pytest.raises(InputError, match="no class beside background"):
        train_segmenter(everyone(writer.finish()), tiny(), tmp_path / "model")
    assert not (tmp_path / "model").exists()
