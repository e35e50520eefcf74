from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.check_masks import check_mask
from neonet3d.cohort.cohort import Case
from neonet3d.cohort.findings import Finding
from neonet3d.cohort.volume import Volume
from neonet3d.types import LabelSchema

SPACING_MM = (1.0, 2.0, 5.0)


def findings(data: np.ndarray, names: tuple[str, ...] = ("liver", "tumour")) -> list[Finding]:
    schema = LabelSchema(("background", *names))
    case = Case("case_1", "p1", None, None, False, Path("absent"), None, schema)
    return list(check_mask(case, Volume(data, np.diag([*SPACING_MM, 1.0]))))


def liver() -> np.ndarray:
    data = np.zeros((20, 20, 20), np.uint8)
    data[4:16, 4:16, 4:16] = 1
    return data


def test_one_tumour_in_the_liver_is_in_order() -> None:
    data = liver()
    data[8:10, 8:10, 8:10] = 2
    assert findings(data) == []


def test_tumours_are_counted_with_their_volumes_greatest_first() -> None:
    data = liver()
    data[5, 5, 5] = 2
    data[8:12, 8:12, 8:12] = 2
    data[13, 13, 13], data[14, 14, 14] = 2, 2  # corner to corner is one piece
    (finding,) = findings(data)
    assert finding.severity == "note"
    assert finding.problem == "the mask holds 3 tumours, of 0.64, 0.02, 0.01 mL"


def test_of_many_tumours_the_greatest_are_listed() -> None:
    data = liver()
    data[5:15:3, 5:15:3, 5] = 2
    (finding,) = findings(data)
    assert finding.problem.startswith("the mask holds 16 tumours, of 0.01,")
    assert finding.problem.endswith("mL and 11 smaller")


@pytest.mark.parametrize(
    ("place", "side"),
    [
        ((0, 9, 9), "left"),
        ((-1, 9, 9), "right"),
        ((9, 0, 9), "back"),
        ((9, -1, 9), "front"),
        ((9, 9, 0), "foot"),
        ((9, 9, -1), "head"),
    ],
)
def test_the_side_that_a_tumour_reaches_is_named(place: tuple[int, int, int], side: str) -> None:
    data = np.ones((20, 20, 20), np.uint8)
    data[place] = 2
    (finding,) = findings(data)
    assert finding.problem == f"the tumour reaches the border of the scan: {side} (1 voxels)"


def test_tumours_away_from_the_liver_are_told_from_those_in_it() -> None:
    data = liver()
    data[8, 8, 8] = data[1, 1, 1] = data[18, 18, 18] = 2
    note, warning = findings(data)
    assert "3 tumours" in note.problem
    assert warning.problem == "2 of 3 tumours (0.02 mL) do not touch the liver"
    data[8, 8, 8] = 1
    assert findings(data)[-1].problem == "no tumour voxel touches the liver"


def test_classes_that_the_cohort_does_not_have_are_not_missed() -> None:
    assert findings(liver(), names=("anterior", "posterior")) == []
    data = liver()
    data[8, 8, 8] = 1
    assert (
        findings((data == 1).astype(np.uint8) * 0 + 1, names=("tumour",))[0].severity == "warning"
    )
    assert findings(np.zeros((3, 3, 3), np.uint8), names=()) == []
