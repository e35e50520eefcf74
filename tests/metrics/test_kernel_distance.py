from typing import Any

import numpy as np
import pytest

from neonet3d.errors import InputError
from neonet3d.metrics import kernel_distance
from neonet3d.metrics.kernel_distance import kid, kid_interval


def kid_by_hand(
    real: np.ndarray, synthetic: np.ndarray, real_case: np.ndarray, synthetic_case: np.ndarray
) -> float:
    """Double loops over pairs of different cases."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    def within(features: np.ndarray, case: np.ndarray) -> float:
        pairs = [
            kernel(features[i], features[j])
            for i in range(len(case))
            for j in range(len(case))
            if case[i] != case[j]
        ]
        return sum(pairs) / len(pairs)

    cross = [kernel(x, y) for x in real for y in synthetic]
    return within(real, real_case) + within(synthetic, synthetic_case) - 2 * sum(cross) / len(cross)


def slices_of_cases(
    rng: np.random.Generator, n_cases: int, n_slices: int = 4, d: int = 6, shift: float = 0.0
) -> np.ndarray:
    """Slices that share most of their variance within a case."""
    case = rng.normal(size=(n_cases, 1, d)) + shift
    return (case + 0.5 * rng.normal(size=(n_cases, n_slices, d))).reshape(-1, d)


def test_equals_the_double_loop_without_groups() -> None:
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(size=(13, 5)), rng.normal(0.5, 1, size=(9, 5))
    expected = kid_by_hand(real, synthetic, np.arange(13), np.arange(9))
    assert kid(real, synthetic) == pytest.approx(expected, abs=1e-12)


def test_equals_the_double_loop_with_unsorted_uneven_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel_distance, "_ROWS_AT_ONCE", 4)  # a case spans two blocks
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=(14, 5)), rng.normal(size=(9, 5))
    real_case = np.array([3, 1, 1, 0, 3, 2, 2, 2, 0, 1, 3, 3, 3, 0])
    synthetic_case = np.array([7, 5, 5, 7, 9, 9, 9, 5, 9])
    value = kid(real, synthetic, real_groups=real_case, synthetic_groups=synthetic_case)
    expected = kid_by_hand(real, synthetic, real_case, synthetic_case)
    assert value == pytest.approx(expected, abs=1e-12)


def test_a_patient_is_not_paired_with_a_draw_on_its_own_mask() -> None:
    """They resemble each other, and would make the distance of equal distributions negative."""
    rng = np.random.default_rng(5)
    n, named, plain = 12, [], []
    groups = np.repeat(np.arange(n), 2)
    for _ in range(200):
        masks = rng.normal(size=(n, 1, 6))
        real, drawn = ((masks + rng.normal(size=(n, 2, 6))).reshape(-1, 6) for _ in range(2))
        sides = {"real_groups": groups, "synthetic_groups": groups}
        named.append(kid(real, drawn, **sides, shared=True))
        plain.append(kid(real, drawn, **sides))
    error = np.std(named) / np.sqrt(len(named))
    assert abs(np.mean(named)) < 3 * error < -np.mean(plain)
    interval = kid_interval(real, drawn, 0, **sides, shared=True, n_resamples=50)
    assert interval.value == pytest.approx(named[-1])
    strangers = {"real_groups": groups, "synthetic_groups": groups + n}
    assert kid(real, drawn, **strangers, shared=True) == pytest.approx(plain[-1])
    with pytest.raises(InputError, match="both sides have them"):
        kid(real, drawn, shared=True)


def test_unbiased_at_every_n_and_symmetric() -> None:
    rng = np.random.default_rng(2)
    for n in (5, 50):
        values = [kid(*rng.normal(size=(2, n, 8))) for _ in range(300)]
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values)) < 3 * error
    a, b = rng.normal(size=(20, 8)), rng.normal(1, 1, size=(30, 8))
    assert kid(a, b) == pytest.approx(kid(b, a), abs=1e-12)
    assert kid(a, b) > 0.5
    assert kid(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(kid(a, b), rel=1e-5)


def test_groups_remove_the_bias_of_slices_that_belong_together() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(10), 4)
    naive, grouped = [], []
    for _ in range(200):
        a, b = slices_of_cases(rng, 10), slices_of_cases(rng, 10)
        naive.append(kid(a, b))
        grouped.append(kid(a, b, real_groups=groups, synthetic_groups=groups))
    error = np.std(grouped) / np.sqrt(len(grouped))
    assert abs(np.mean(grouped)) < 3 * error
    assert np.mean(naive) > 10 * error


def test_interval_covers_and_replays() -> None:
    rng = np.random.default_rng(4)
    truth = kid(rng.normal(size=(2000, 6)), rng.normal(size=(2000, 6)))
    assert abs(truth) < 0.02
    groups = np.repeat(np.arange(25), 4)
    by_case: dict[str, Any] = {"real_groups": groups, "synthetic_groups": groups}
    intervals = [
        kid_interval(
            slices_of_cases(rng, 25), slices_of_cases(rng, 25), seed, n_resamples=200, **by_case
        )
        for seed in range(60)
    ]
    assert np.mean([i.low <= 0 <= i.high for i in intervals]) > 0.9
    a, b = slices_of_cases(rng, 25), slices_of_cases(rng, 25, shift=1.0)
    apart = kid_interval(a, b, 0, **by_case)
    assert 0 < apart.low < apart.value < apart.high
    assert apart.value == kid(a, b, **by_case)
    assert apart.n == 50
    assert apart == kid_interval(a, b, 0, **by_case)
    assert apart != kid_interval(a, b, 1, **by_case)


def test_interval_is_centred_on_the_estimate() -> None:
    # A bootstrap that pairs a case with its own copy would lie above the estimate.
    a, b = np.random.default_rng(5).normal(size=(2, 15, 40))
    interval = kid_interval(a, b, 0)
    assert interval.low < interval.value < interval.high
    length = interval.high - interval.low
    assert abs((interval.low + interval.high) / 2 - interval.value) < 0.2 * length


def test_three_cases_are_enough_and_two_are_not() -> None:
    a, b = np.random.default_rng(6).normal(size=(2, 3, 4))
    assert np.isfinite([kid_interval(a, b, 0).low, kid_interval(a, b, 0).high]).all()
    with pytest.raises(ValueError, match="2 real and 3 synthetic cases"):
        kid_interval(a[:2], b, 0)
