from __future__ import annotations

import csv
from dataclasses import astuple

import numpy as np
import pytest

from neonet3d.cohort.volume import Volume
from neonet3d.metrics.lesions import LesionCount
from neonet3d.segmentation.score import as_csv, mean_of, score_case, sensitivity
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
VOXEL_ML = 0.02


def mask(*tumours: int, liver: bool = True) -> Volume:
    """A slab of liver with cubes of tumour that begin at these places along x."""
    data = np.zeros((30, 12, 8), np.uint8)
    data[1:29, 1:11, 1:7] = liver
    for x in tumours:
        data[x : x + 4, 4:8, 2:6] = 2
    return Volume(data, AFFINE)


def test_a_perfect_mask() -> None:
    score = score_case("a", mask(5), mask(5), SCHEMA)
    for name in ("liver", "tumour"):
        assert astuple(score.classes[name]) == (1, 0, 1, 0)
    assert score.lesions == LesionCount(1, 1, 0)


def test_a_shifted_tumour_is_measured_in_mm_and_ml() -> None:
    score = score_case("a", mask(7, 20), mask(5), SCHEMA).classes["tumour"]
    assert score.dice == pytest.approx(2 * 32 / (128 + 64))
    assert score.volume_error_ml == pytest.approx(64 * VOXEL_ML)
    moved = score_case("a", mask(6), mask(5), SCHEMA).classes["tumour"]
    assert moved.hd95_mm == pytest.approx(2)
    assert moved.surface_dice == pytest.approx(1)  # within 2 mm
    assert moved.volume_error_ml == 0


def test_missed_and_absent() -> None:
    missed = score_case("a", mask(), mask(5), SCHEMA)
    assert missed.classes["tumour"].dice == 0
    assert missed.classes["tumour"].hd95_mm > 60
    assert missed.classes["tumour"].volume_error_ml == pytest.approx(-64 * VOXEL_ML)
    assert missed.lesions == LesionCount(1, 0, 0)
    absent = score_case("b", mask(), mask(), SCHEMA)
    assert np.isnan(astuple(absent.classes["tumour"])).all()
    # A case without the class is left out of its mean.
    scores = [missed, absent, score_case("c", mask(5), mask(5), SCHEMA)]
    mean = mean_of(scores, "tumour", "dice", seed=0)
    assert (mean.value, mean.n) == (0.5, 2)
    share = sensitivity(scores)
    assert share is not None
    assert (share.n_positive, share.n) == (1, 2)
    assert sensitivity([absent]) is None


def test_a_schema_without_tumour_has_no_lesions() -> None:
    organs = LabelSchema(("background", "liver"))
    assert score_case("a", mask(), mask(), organs).lesions is None


def test_the_table() -> None:
    scores = [score_case("a", mask(5), mask(5), SCHEMA), score_case("b", mask(), mask(), SCHEMA)]
    rows = list(csv.DictReader(as_csv(scores).splitlines()))
    assert [row["case"] for row in rows] == ["a", "b"]
    assert rows[0]["tumour_dice"] == rows[0]["liver_surface_dice"] == "1"
    assert rows[0]["lesions_found"] == "1"
    assert rows[1]["tumour_hd95_mm"] == "nan"
    assert rows[1]["lesions"] == "0"
