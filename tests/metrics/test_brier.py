import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from neonet3d.metrics.brier import brier_score, decompose_brier


@pytest.fixture
def cases() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    probabilities = rng.beta(1, 2, size=150)
    return (rng.random(150) < probabilities).astype(int), probabilities


def test_the_score_is_that_of_scikit_learn(cases: tuple[np.ndarray, np.ndarray]) -> None:
    found = brier_score(*cases, seed=0)
    assert found.value == pytest.approx(brier_score_loss(*cases), abs=1e-12)
    assert found.low < found.value < found.high
    assert (found.n, found.n_positive) == (150, int(cases[0].sum()))


def test_the_interval_covers_the_true_score() -> None:
    """Of calibrated probabilities the true score is the mean of p (1 - p)."""
    rng = np.random.default_rng(0)
    truth = 1 / 3 * 2 / 3 - 1 / 18  # of Beta(1, 2): m (1 - m) less the variance
    covered = 0
    for seed in range(200):
        p = rng.beta(1, 2, size=100)
        found = brier_score((rng.random(100) < p).astype(int), p, seed)
        covered += found.low <= truth <= found.high
    assert 0.90 < covered / 200 < 0.985


def test_murphys_parts_of_a_table_by_hand() -> None:
    """Ten cases at 0.2 of which 1 is positive, ten at 0.7 of which 8 are."""
    labels = np.repeat([1, 0, 1, 0], [1, 9, 8, 2])
    parts = decompose_brier(labels, np.repeat([0.2, 0.7], 10), n_bins=None)
    assert parts.reliability == pytest.approx((0.1**2 + 0.1**2) / 2)
    assert parts.resolution == pytest.approx((0.35**2 + 0.35**2) / 2)
    assert parts.uncertainty == pytest.approx(0.45 * 0.55)
    assert parts.within_bins == pytest.approx(0, abs=1e-15)
    assert parts.score == pytest.approx((0.64 + 9 * 0.04 + 8 * 0.09 + 2 * 0.49) / 20)
    assert parts.skill == pytest.approx(1 - parts.score / 0.2475)
    assert (parts.n, parts.n_bins) == (20, 2)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=1, max_size=60),
    st.sampled_from([None, 1, 3, 10]),
    st.sampled_from(["equal-mass", "equal-width"]),
)
def test_the_parts_add_up_in_any_binning(cases, n_bins, binning) -> None:
    labels, eighths = map(np.array, zip(*cases, strict=True))
    parts = decompose_brier(labels, eighths / 8, n_bins, binning)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert total == pytest.approx(parts.score, abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0
    if n_bins is None:
        assert parts.within_bins == pytest.approx(0, abs=1e-12)


def test_who_always_says_the_prevalence_has_no_skill() -> None:
    labels = np.repeat([1, 0], [34, 94])
    parts = decompose_brier(labels, np.full(128, 34 / 128))
    assert parts.score == pytest.approx(parts.uncertainty)
    assert parts.skill == pytest.approx(0)
    assert parts.resolution == pytest.approx(0)


def test_of_one_class_there_is_a_score_and_no_skill() -> None:
    parts = decompose_brier(np.zeros(3, int), np.array([0.0, 0.5, 0.0]))
    assert parts.score == pytest.approx(0.25 / 3)
    assert np.isnan(parts.skill)


def test_bins_of_another_probability_each_say_nothing(
    cases: tuple[np.ndarray, np.ndarray],
) -> None:
    """Why forecasts are binned: with a group for each case, resolution is all there is."""
    parts = decompose_brier(*cases, n_bins=None)
    assert parts.resolution == pytest.approx(parts.uncertainty)
    assert decompose_brier(*cases).resolution < parts.resolution / 2
