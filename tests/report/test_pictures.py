from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.volume import Volume
from neonet3d.report.cases import read_pairs, read_scans
from neonet3d.report.palette import LIGHT
from neonet3d.report.pictures import (
    Labelled,
    Pair,
    Plane,
    largest_slice,
    pairs,
    reference_level,
    spread_over_outcomes,
    tile,
    whole_scans,
)
from neonet3d.study.results import StudyResults
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))


def labelled(image: np.ndarray, mask: np.ndarray) -> Labelled:
    affine = np.diag([1.0, 2.0, 4.0, 1.0])
    return Labelled(Volume(image.astype(np.float32), affine), Volume(mask.astype(np.uint8), affine))


def size(png: bytes) -> tuple[int, int]:
    height, width = np.asarray(imread(io.BytesIO(png), format="png")).shape[:2]
    return width, height


def test_cases_are_spread_evenly_and_half_of_them_positive() -> None:
    outcomes = [1, 0, 0, 0] * 10
    chosen = spread_over_outcomes(outcomes, 8)
    assert chosen == sorted(set(chosen))
    assert [outcomes[i] for i in chosen].count(1) == 4
    assert [i // 4 for i in chosen if outcomes[i]] == [1, 3, 6, 8]  # of ten positive ones


@pytest.mark.parametrize(
    ("outcomes", "n_positive", "n"),
    [([0] * 9 + [1], 1, 8), ([1] * 9 + [0], 7, 8), ([1, 0, 1], 2, 3), ([0] * 5, 0, 5)],
)
def test_a_rare_outcome_leaves_its_place(outcomes: list[int], n_positive: int, n: int) -> None:
    chosen = spread_over_outcomes(outcomes, 8)
    assert len(chosen) == n
    assert sum(outcomes[i] for i in chosen) == n_positive


def test_the_reference_level_is_the_liver_or_what_is_bright() -> None:
    image = np.full((4, 4, 4), 10.0)
    mask = np.zeros((4, 4, 4))
    mask[:2] = 1
    image[:2] = np.linspace(100, 300, 32).reshape(2, 4, 4)
    assert reference_level(labelled(image, mask), SCHEMA) == pytest.approx(200)
    no_liver = reference_level(labelled(image, np.zeros_like(mask)), SCHEMA)
    assert no_liver == pytest.approx(np.percentile(image, 99.5))
    assert reference_level(labelled(-image, mask), SCHEMA) == 1.0


def test_the_slice_is_where_the_tumour_is_largest_and_else_in_the_middle() -> None:
    mask = np.zeros((6, 8, 5))
    mask[2:4, 2:4, 1] = 2
    mask[1:5, 6, 1] = 2
    shown = labelled(mask, mask)
    assert largest_slice(shown.mask, "axial", 2) == 1
    assert largest_slice(shown.mask, "coronal", 2) == 6
    assert largest_slice(shown.mask, "coronal", 1) == 4
    assert largest_slice(shown.mask, "axial", None) == 2


def test_right_is_on_the_left_and_superior_is_up() -> None:
    image = np.zeros((3, 4, 5))
    image[2, 3, 4] = 1  # right, anterior, superior
    shown = labelled(image, np.zeros_like(image))
    axial, coronal = tile(shown, "axial", 4, SCHEMA), tile(shown, "coronal", 3, SCHEMA)
    assert np.argwhere(axial.grey).tolist() == [[3, 0]]  # row 0 is the lowest
    assert np.argwhere(coronal.grey).tolist() == [[4, 0]]
    assert axial.size_mm == (8, 3)
    assert coronal.size_mm == (20, 3)


def test_scaled_intensities_look_the_same(finished_run: Path, results: StudyResults) -> None:
    crops = Cohort.open(finished_run / "crops")
    pair = read_pairs(finished_run, crops, results)[0]
    real = pair.real
    # By a power of two, so that the division gives the same floats.
    brighter = replace(real, image=real.image.with_data(real.image.data * 4))
    drawn = pairs([pair], "axial", crops.schema, "pni", LIGHT)
    assert drawn == pairs([replace(pair, real=brighter)], "axial", crops.schema, "pni", LIGHT)


@pytest.mark.parametrize("plane", ["axial", "coronal"])
@pytest.mark.parametrize(
    "change",
    [
        lambda p: replace(p, synthetic=replace(p.synthetic, image=p.real.image)),
        lambda p: replace(
            p,
            synthetic=replace(
                p.synthetic,
                mask=p.synthetic.mask.with_data(np.roll(p.synthetic.mask.data, 2, axis=0)),
            ),
        ),
        lambda p: replace(p, number=99),
        lambda p: replace(p, outcome=1 - p.outcome),
    ],
    ids=["image", "mask", "number", "outcome"],
)
def test_pairs_show_their_data(
    finished_run: Path, results: StudyResults, plane: Plane, change: Callable[[Pair], Pair]
) -> None:
    crops = Cohort.open(finished_run / "crops")
    pair = read_pairs(finished_run, crops, results)[0]
    drawn = pairs([pair], plane, crops.schema, "pni", LIGHT)
    assert drawn != pairs([change(pair)], plane, crops.schema, "pni", LIGHT)


def test_a_full_row_of_pairs_fills_the_page(finished_run: Path, results: StudyResults) -> None:
    crops = Cohort.open(finished_run / "crops")
    chosen = read_pairs(finished_run, crops, results)
    assert [pair.number for pair in chosen] == [1, 2, 3, 4, 5, 6]
    eight = [*chosen, *chosen[:2]]
    width, height = size(pairs(eight, "axial", crops.schema, "pni", LIGHT))
    assert width == 1725
    assert 800 < height < 950


def test_scans_show_neoseg_s_mask(finished_run: Path, results: StudyResults) -> None:
    cohort = Cohort.open(finished_run.parent / "cohort")
    chosen = read_scans(finished_run, cohort, results)
    assert len(chosen) == 4
    assert {scan.outcome for scan in chosen} == {0, 1}
    drawn = whole_scans(chosen, cohort.schema, "pni", LIGHT)
    assert size(drawn)[0] == 1725
    exact = [replace(scan, predicted=scan.reference.mask) for scan in chosen]
    assert drawn != whole_scans(exact, cohort.schema, "pni", LIGHT)


def test_cases_without_a_tumour_or_with_nothing_but_liver_are_drawn(
    finished_run: Path, results: StudyResults
) -> None:
    cohort = Cohort.open(finished_run.parent / "cohort")
    scan = read_scans(finished_run, cohort, results)[0]
    for value in (0, 1):
        mask = scan.predicted.with_data(np.full(scan.predicted.shape, value, dtype=np.uint8))
        bare = replace(scan, reference=replace(scan.reference, mask=mask), predicted=mask)
        assert whole_scans([bare], cohort.schema, "pni", LIGHT)


def test_other_organs_than_the_liver_are_drawn() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((12, 12, 6))
    mask[3:8, 3:8, 2:5] = 1
    shown = labelled(rng.uniform(0, 5, mask.shape), mask)
    schema = LabelSchema(("background", "kidney"))
    assert pairs([Pair(1, 0, shown, shown)], "coronal", schema, "grade_$3$", LIGHT)
