from __future__ import annotations

import csv

import numpy as np
import pytest

from neonet3d.metrics.lesions import LesionCount
from neonet3d.segmentation.score import CaseScore, ClassScore
from neonet3d.segmentation.score_summary import MeasureSummary, summarise_scores, summary_csv

NAN, INF = float("nan"), float("inf")


def case(
    participant: str, dice: float, hd95_mm: float, lesions: tuple[int, int, int] = (1, 1, 0)
) -> CaseScore:
    there, found, false = lesions
    tumour = ClassScore(dice, None, hd95_mm, dice, 0.0, NAN if np.isnan(dice) else 10.0)
    return CaseScore(
        "case", participant, {"tumour": tumour}, LesionCount(there, found, false, (dice,) * found)
    )


SCORES = [
    case("a", 0.8, 4, (1, 1, 1)),
    case("a", 0.6, 6, (2, 1, 0)),
    case("b", 0.0, INF, (1, 0, 2)),
    case("c", NAN, NAN, (0, 0, 0)),
]


def summary(scores: list[CaseScore] = SCORES) -> dict[str, MeasureSummary]:
    return {row.measure: row for row in summarise_scores(scores, seed=0)}


def test_a_miss_counts_and_an_absent_tumour_is_counted_apart() -> None:
    dice = summary()["dice"]
    assert dice.mean.value == pytest.approx((0.8 + 0.6 + 0) / 3)
    assert (dice.n, dice.n_infinite, dice.n_undefined, dice.patients) == (3, 0, 1, 2)


def test_an_infinite_distance_leaves_the_median_and_takes_the_mean() -> None:
    distance = summary()["hd95_mm"]
    assert distance.median is not None
    assert distance.median.value == 6
    assert np.isnan(distance.mean.value)
    assert (distance.n, distance.n_infinite, distance.n_undefined) == (3, 1, 1)


def test_the_interval_is_over_patients() -> None:
    """Two patients are drawn: both scans of a, b alone, or all three; never one scan of a."""
    dice = summary()["dice"].mean
    assert dice.n == 2
    assert (dice.low, dice.high) == pytest.approx((0, 0.7))


def test_lesions() -> None:
    rows = summary()
    share = rows["lesion_sensitivity"]
    assert (share.mean.n_positive, share.n, share.unit, share.patients) == (2, 4, "lesion", 2)
    assert rows["lesion_dice"].mean.value == pytest.approx(0.7)
    assert rows["false_findings"].mean.value == pytest.approx(3 / 4)
    assert rows["false_findings"].n == 4


def test_without_a_lesion_anywhere() -> None:
    rows = summary([case("a", NAN, NAN, (0, 0, 0)), case("b", NAN, NAN, (0, 0, 1))])
    assert "lesion_sensitivity" not in rows
    assert np.isnan(rows["dice"].mean.value)
    assert (rows["dice"].n, rows["dice"].n_undefined) == (0, 2)
    assert rows["lesion_dice"].n == 0
    assert rows["false_findings"].mean.value == 0.5


def test_the_file() -> None:
    rows = list(csv.DictReader(summary_csv(summarise_scores(SCORES, seed=0)).splitlines()))
    by = {row["measure"]: row for row in rows}
    assert len({(row["class"], row["measure"]) for row in rows}) == len(rows)
    assert (by["hd95_mm"]["median"], by["hd95_mm"]["mean"]) == ("6", "nan")
    assert (by["hd95_mm"]["n"], by["hd95_mm"]["n_infinite"], by["hd95_mm"]["patients"]) == (
        "3",
        "1",
        "2",
    )
    assert by["lesion_sensitivity"]["mean"] == "0.5"
    assert by["lesion_sensitivity"]["median"] == "nan"
    assert by["dice"]["interval"].startswith("percentile bootstrap over patients")
