from typing import Any, Literal

import numpy as np
import pytest

from neonet3d.metrics.floor import matched_frechet, real_floor
from neonet3d.metrics.frechet import frechet_distance
from neonet3d.metrics.kernel_distance import kid


def slices_of_cases(rng: np.random.Generator, n_cases: int, shift: float = 0.0) -> np.ndarray:
    case = rng.normal(size=(n_cases, 1, 6)) + shift
    return (case + 0.5 * rng.normal(size=(n_cases, 4, 6))).reshape(-1, 6)


def test_four_cases_have_three_splits_by_case() -> None:
    rng = np.random.default_rng(0)
    real = slices_of_cases(rng, 4)
    groups = np.repeat([10, 11, 12, 13], 4)
    expected_fid, expected_kid = [], []
    for partner in (11, 12, 13):
        in_a = np.isin(groups, [10, partner])
        expected_fid.append(frechet_distance(real[in_a], real[~in_a]))
        expected_kid.append(
            kid(
                real[in_a],
                real[~in_a],
                real_groups=groups[in_a],
                synthetic_groups=groups[~in_a],
            )
        )
    by_hand: dict[Literal["fid", "kid"], list[float]] = {"fid": expected_fid, "kid": expected_kid}
    for metric, expected in by_hand.items():
        floor = real_floor(real, metric, 0, groups=groups, n_splits=40)
        # If a case were ever split, some value would lie outside.
        assert floor.low == pytest.approx(min(expected), abs=1e-10)
        assert floor.high == pytest.approx(max(expected), abs=1e-10)
        assert floor.low < floor.mean < floor.high
        assert floor.n_cases == 2


def test_kid_floor_is_zero_on_average() -> None:
    real = slices_of_cases(np.random.default_rng(1), 24)
    floor = real_floor(real, "kid", 0, groups=np.repeat(np.arange(24), 4), n_splits=2000)
    assert floor.low < 0 < floor.high
    assert abs(floor.mean) < 0.03 * (floor.high - floor.low)


def test_fid_floor_depends_on_n_and_the_match_keeps_it_fair() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(40), 4)
    real, alike = slices_of_cases(rng, 40), slices_of_cases(rng, 40)
    by_case: dict[str, Any] = {"real_groups": groups, "synthetic_groups": groups}
    small = real_floor(real, "fid", 0, groups=groups, n_cases=5)
    large = real_floor(real, "fid", 0, groups=groups)
    assert small.mean > 2 * large.mean
    assert (small.n_cases, large.n_cases) == (5, 20)
    same = matched_frechet(real, alike, 0, **by_case)
    assert same.distance.n_cases == same.floor.n_cases == 20
    assert same.distance.mean == pytest.approx(same.floor.mean, rel=0.5)
    apart = matched_frechet(real, alike + 1, 0, **by_case)
    assert apart.distance.mean > same.floor.mean + 3
    assert apart.floor == same.floor == large


def test_few_synthetic_cases_lower_n_on_both_sides() -> None:
    rng = np.random.default_rng(3)
    real, synthetic = slices_of_cases(rng, 20), slices_of_cases(rng, 6)
    groups = np.repeat(np.arange(20), 4)
    matched = matched_frechet(real, synthetic, 5, real_groups=groups, synthetic_groups=groups[:24])
    assert matched.distance.n_cases == matched.floor.n_cases == 3
    assert matched.floor == real_floor(real, "fid", 5, groups=groups, n_cases=3)


def test_errors_are_sentences() -> None:
    real = np.random.default_rng(4).normal(size=(12, 3))
    with pytest.raises(ValueError, match="at least 4 real cases"):
        real_floor(real, "kid", 0, groups=np.repeat(np.arange(3), 4))
    with pytest.raises(ValueError, match="two disjoint sets of 7 from 12"):
        real_floor(real, "fid", 0, n_cases=7)
    uneven = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3])
    with pytest.raises(ValueError, match="from 2 to 4 slices"):
        real_floor(real, "fid", 0, groups=uneven)
    even = np.repeat(np.arange(6), 2)
    with pytest.raises(ValueError, match="from 2 to 3 slices"):
        matched_frechet(
            real, real, 0, real_groups=even, synthetic_groups=np.repeat(np.arange(4), 3)
        )
