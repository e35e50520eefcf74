from __future__ import annotations

import math

import numpy as np
import pytest

from neonet3d.config import load_config
from neonet3d.study.augmentation_arms import Scores, study_arms
from neonet3d.study.augmentation_results import AugmentationCell
from neonet3d.study.augmentation_table import equal_cases, tabulate, worth_of

NUMBERS = np.array([8.0, 16.0, 32.0])
CURVE = np.array([0.4, 0.6, 0.7])
PATIENTS = tuple(f"p{i}" for i in range(20))


def run(values: np.ndarray) -> Scores:
    distance = np.where(values == 0, math.inf, 10 * (1 - values))
    return Scores({"tumour": values}, {"tumour": distance}, PATIENTS)


def table(
    scores: dict[tuple[str, str, int], list[Scores]], there: np.ndarray | None = None
) -> tuple[AugmentationCell, ...]:
    holds = {"tumour": np.ones(20, dtype=bool) if there is None else there}
    return tabulate(scores, {8: holds, 16: holds}, seed=0)


def test_seeds_are_averaged_and_gains_are_paired() -> None:
    """Cases differ much and the gain is the same in each: a paired interval has no width."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.1, 0.7, 20)
    noise = rng.normal(0, 0.01, 20)
    scores = {
        ("unet", "real", 8): [run(base + noise), run(base - noise)],
        ("unet", "synthetic_1", 8): [run(base + 0.1 + noise), run(base + 0.1 - noise)],
    }
    real, synthetic = table(scores)
    assert real.dice.value == pytest.approx(base.mean())
    assert real.gain.value == 0
    assert synthetic.gain.value == pytest.approx(0.1)
    assert synthetic.gain.high - synthetic.gain.low < 1e-9
    assert synthetic.dice.high - synthetic.dice.low > 0.05
    both = np.concatenate([base + noise, base - noise])
    assert real.hd95_mm.value == pytest.approx(np.median(10 * (1 - both)))


def test_a_class_missed_by_one_seed_is_missed_there_alone() -> None:
    """However many seeds there are: each misses another quarter of the cases."""
    runs = []
    for seed in range(4):
        values = np.full(20, 0.5)
        values[5 * seed : 5 * seed + 5] = 0
        runs.append(run(values))
    cells = table({("unet", "real", 8): runs})
    assert cells[0].hd95_mm.value == pytest.approx(5)
    assert cells[0].dice.value == pytest.approx(0.375)


def test_a_class_missed_more_often_than_not_has_no_distance() -> None:
    values = np.full(20, 0.5)
    values[:11] = 0
    cells = table({("unet", "real", 8): [run(values), run(values)]})
    assert cells[0].hd95_mm.value == math.inf


def test_cases_without_the_class_are_told_apart() -> None:
    """One of two seeds invents it in five of ten cases without: no arm's Dice may move."""
    there = np.arange(20) >= 10
    nothing = np.where(there, 0.5, math.nan)
    invents = nothing.copy()
    invents[:5] = 0
    scores = {
        ("unet", "real", 8): [run(nothing), run(nothing)],
        ("unet", "synthetic_1", 8): [run(nothing), run(invents)],
    }
    real, synthetic = table(scores, there)
    for cell in (real, synthetic):
        assert cell.dice.value == pytest.approx(0.5)
        assert (cell.dice.n, cell.n_without) == (10, 10)
    assert synthetic.gain.value == 0
    assert (real.invented, synthetic.invented) == (0, 0.25)


def test_a_class_that_every_case_holds_is_invented_nowhere() -> None:
    [cell] = table({("unet", "real", 8): [run(np.full(20, 0.5))]})
    assert (cell.n_without, cell.invented) == (0, None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.4, 8), (0.5, 8 * 2**0.5), (0.6, 16), (0.65, 16 * 2**0.5), (0.7, 32), (0.71, None)],
)
def test_equal_cases_are_read_off_the_curve(value: float, expected: float | None) -> None:
    found = equal_cases(NUMBERS, CURVE, value)
    assert found is None if expected is None else found == pytest.approx(expected)


def test_below_the_first_point_nothing_is_known() -> None:
    assert equal_cases(NUMBERS, CURVE, 0.39) is None


def test_worth_is_the_mean_over_networks_and_classes() -> None:
    settings = load_config("demo").augmentation_study.model_copy(update={"ratios": (1.0,)})
    arms = study_arms(settings)
    scores = {}
    for network, shift in (("unet", -0.1), ("vnet", 0.1)):
        for n, real in ((8, 0.4), (16, 0.6)):
            for arm in arms:
                value = real + shift + (0.1 if arm.key == "both" else 0.0)
                scores[network, arm.key, n] = [run(np.full(20, value))]
    found = {(w.arm, w.real_cases): w for w in worth_of(table(scores), arms)}
    assert ("real", 8) not in found
    assert found["both", 8].dice == pytest.approx(0.5)
    assert found["both", 8].equal_to == pytest.approx(8 * 2**0.5)
    assert found["classic", 8].equal_to == pytest.approx(8)
    assert found["both", 16].equal_to is None


def test_a_class_that_no_case_holds_takes_no_part_in_the_worth() -> None:
    def two(value: float) -> Scores:
        there, nowhere = np.full(20, value), np.full(20, math.nan)
        return Scores(
            {"tumour": there, "vein": nowhere}, {"tumour": there, "vein": nowhere}, PATIENTS
        )

    of = {8: 0.4, 16: 0.6}
    scores = {("unet", arm, n): [two(d)] for arm in ("real", "classic") for n, d in of.items()}
    holds = {n: {"tumour": np.ones(20, bool), "vein": np.zeros(20, bool)} for n in of}
    arms = study_arms(load_config("cpu").augmentation_study)[:2]
    worth = worth_of(tabulate(scores, holds, seed=0), arms)
    assert [(w.dice, w.equal_to) for w in worth] == [
        (pytest.approx(0.4), pytest.approx(8)),
        (pytest.approx(0.6), pytest.approx(16)),
    ]
