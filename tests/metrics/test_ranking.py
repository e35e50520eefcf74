import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score

from neonet3d.metrics.ranking import placements, score_interval, weighted_auc


def test_placements_by_counting() -> None:
    positive, negative = np.array([3.0, 1.0, 2.0]), np.array([1.0, 0.0, 2.0, 2.0])
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    of_positive, of_negative = placements(positive, negative)
    np.testing.assert_allclose(of_positive, wins.mean(axis=1), rtol=0, atol=1e-15)
    np.testing.assert_allclose(of_negative, wins.mean(axis=0), rtol=0, atol=1e-15)


def test_weighted_auc_is_that_of_the_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    labels = np.array([0, 1] * 15)
    scores = rng.integers(0, 6, size=30).astype(float)
    weights = rng.integers(0, 4, size=(20, 30))
    for row, value in zip(
        weights, weighted_auc(labels, scores, weights.astype(float)), strict=True
    ):
        expected = roc_auc_score(np.repeat(labels, row), np.repeat(scores, row))
        assert value == pytest.approx(expected, abs=1e-12)


def test_score_interval_ends_solve_hanley_and_mcneils_variance() -> None:
    # Newcombe (2006), method 5: Hanley & McNeil's variance at theta, with n* = m* = (n + m) / 2.
    n, m, value, z = 12, 30, 0.8, 1.96

    def excess(theta: float) -> float:
        typical = (n + m) / 2
        q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
        spread = theta * (1 - theta) + (typical - 1) * (q1 + q2 - 2 * theta**2)
        return abs(value - theta) - z * float(np.sqrt(spread / (n * m)))

    expected = brentq(excess, 0.01, value), brentq(excess, value, 0.999)
    assert score_interval(value, n, m, z) == pytest.approx(expected, abs=1e-9)


def test_score_interval_mirrors_and_narrows() -> None:
    low, high = score_interval(1.0, 10, 20, 1.96)
    assert high == 1.0
    assert 0.7 < low < 1.0
    assert score_interval(0.0, 10, 20, 1.96) == pytest.approx((0.0, 1 - low), abs=1e-9)
    assert score_interval(1.0, 100, 200, 1.96)[0] > low
