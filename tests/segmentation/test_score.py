from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.volume import Volume
from neonet3d.metrics.lesions import LesionCount
from neonet3d.segmentation.score import CaseScore, as_csv, is_vessel, score_case
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour", "hepatic_vein"))
AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])
VOXEL_ML = 0.02
Score = Callable[..., CaseScore]


def mask(*tumours: int, liver: bool = True, vein: int = 26) -> Volume:
    """A slab of liver with cubes of tumour from these places along x, and a vein of that length."""
    data = np.zeros((30, 12, 8), np.uint8)
    data[1:29, 1:11, 1:7] = liver
    data[2 : 2 + vein, 2, 2] = 3
    for x in tumours:
        data[x : x + 4, 4:8, 2:6] = 2
    return Volume(data, AFFINE)


@pytest.fixture
def score(make_cohort: Callable[..., Cohort]) -> Score:
    case = next(iter(make_cohort([None], participants=["sub-1"])))

    def of(found: Volume, drawn: Volume, schema: LabelSchema = SCHEMA) -> CaseScore:
        return score_case(case, found, drawn, schema, tolerance_mm=2)

    return of


def test_a_perfect_mask(score: Score) -> None:
    perfect = score(mask(5), mask(5))
    assert perfect.participant == "sub-1"
    measures = perfect.classes["liver"].as_mapping()
    assert measures == {
        "dice": 1,
        "hd95_mm": 0,
        "surface_dice": 1,
        "volume_error_ml": 0,
        "volume_error_percent": 0,
    }
    assert perfect.classes["hepatic_vein"].as_mapping() == measures | {"cl_dice": 1}
    assert perfect.lesions == LesionCount(1, 1, 0, (1,))


def test_a_shifted_tumour_is_measured_in_mm_and_ml(score: Score) -> None:
    tumour = score(mask(7, 20), mask(5)).classes["tumour"]
    assert tumour.dice == pytest.approx(2 * 32 / (128 + 64))
    assert tumour.volume_error_ml == pytest.approx(64 * VOXEL_ML)
    assert tumour.volume_error_percent == pytest.approx(100)
    moved = score(mask(6), mask(5)).classes["tumour"]
    assert moved.hd95_mm == pytest.approx(2)
    assert moved.surface_dice == pytest.approx(1)  # within 2 mm
    assert moved.volume_error_ml == 0


def test_half_a_vein(score: Score) -> None:
    vein = score(mask(5, vein=13), mask(5)).classes["hepatic_vein"]
    assert vein.cl_dice == vein.dice == pytest.approx(2 * 0.5 / 1.5)  # one voxel wide
    assert vein.volume_error_percent == pytest.approx(-50)


def test_missed(score: Score) -> None:
    missed = score(mask(), mask(5, 20))
    tumour = missed.classes["tumour"]
    assert (tumour.dice, tumour.surface_dice) == (0, 0)
    assert tumour.hd95_mm == np.inf
    assert tumour.volume_error_ml == pytest.approx(-128 * VOXEL_ML)
    assert tumour.volume_error_percent == -100
    assert missed.lesions == LesionCount(2, 0, 0, ())


def test_invented(score: Score) -> None:
    invented = score(mask(5), mask())
    tumour = invented.classes["tumour"]
    assert (tumour.dice, tumour.surface_dice) == (0, 0)
    assert tumour.hd95_mm == np.inf
    assert tumour.volume_error_ml == pytest.approx(64 * VOXEL_ML)
    assert np.isnan(tumour.volume_error_percent)
    assert invented.lesions == LesionCount(0, 0, 1, ())


def test_absent(score: Score) -> None:
    absent = score(mask(vein=0), mask(vein=0))
    for name in ("tumour", "hepatic_vein"):
        assert np.isnan(list(absent.classes[name].as_mapping().values())).all()
    assert absent.lesions == LesionCount(0, 0, 0, ())
    nothing = score(mask(liver=False, vein=0), mask(liver=False, vein=0))
    assert np.isnan(nothing.classes["liver"].dice)


def test_a_schema_without_tumour_has_no_lesions(score: Score) -> None:
    organs = LabelSchema(("background", "liver"))
    assert score(mask(vein=0), mask(vein=0), organs).lesions is None


@pytest.mark.parametrize(
    "name", ["portal_vein", "Hepatic Vein", "vessel", "liver-vessels", "artery"]
)
def test_vessels_by_their_names(name: str) -> None:
    assert is_vessel(name)


@pytest.mark.parametrize("name", ["liver", "tumour", "vein_tumour", "veinlike", "posterior"])
def test_what_is_no_vessel(name: str) -> None:
    assert not is_vessel(name)


def test_the_table(score: Score) -> None:
    scores = [score(mask(5), mask(5)), replace(score(mask(), mask()), case="b")]
    rows = list(csv.DictReader(as_csv(scores).splitlines()))
    assert [(row["case"], row["participant_id"]) for row in rows] == [
        ("case_000", "sub-1"),
        ("b", "sub-1"),
    ]
    assert rows[0]["tumour_dice"] == rows[0]["liver_surface_dice"] == "1"
    assert rows[0]["hepatic_vein_cl_dice"] == "1"
    assert "liver_cl_dice" not in rows[0]
    assert (rows[0]["lesions_found"], rows[0]["lesions_found_dice"]) == ("1", "1")
    assert rows[1]["tumour_hd95_mm"] == rows[1]["lesions_found_dice"] == "nan"
    assert rows[1]["lesions"] == "0"
