import numpy as np
import pytest

from neonet3d.metrics.two_sample import two_sample_auc


def test_alike_is_chance_and_shifted_is_not() -> None:
    rng = np.random.default_rng(0)
    alike, apart = [], []
    for seed in range(20):
        real, synthetic = rng.normal(size=(2, 60, 6))
        alike.append(two_sample_auc(real, synthetic, seed, n_resamples=200))
        apart.append(two_sample_auc(real, synthetic + np.eye(6)[0], seed, n_resamples=200))
    assert np.mean([found.value for found in alike]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([found.low for found in alike]) < 0.45
    # One shift of one deviation: AUC = Phi(1 / sqrt 2) = 0.760 for the best of all classifiers.
    assert 0.68 < np.mean([found.value for found in apart]) < 0.77
    assert all(found.low > 0.5 for found in apart)
    assert (alike[0].n, alike[0].n_positive) == (120, 60)


def test_perfect_separation_keeps_an_honest_interval() -> None:
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=(2, 20, 3))
    found = two_sample_auc(real, synthetic + 50, 0)
    assert (found.value, found.high) == (1, 1)
    assert 0.8 < found.low < 0.95
    assert "Newcombe" in found.method


def test_scales_and_shifts_of_features_change_nothing() -> None:
    rng = np.random.default_rng(2)
    real, synthetic = rng.normal(size=(2, 30, 4))
    scale, shift = np.array([1e-3, 1, 1e3, 7]), np.array([5, -2, 1e4, 0])
    first = two_sample_auc(real, synthetic, 0, n_resamples=100)
    second = two_sample_auc(real * scale + shift, synthetic * scale + shift, 0, n_resamples=100)
    assert first.value == pytest.approx(second.value, abs=1e-3)


def test_rows_of_a_case_stay_in_one_fold() -> None:
    # Each case has its own place and three rows there; the sides do not differ in any other way.
    rng = np.random.default_rng(3)
    places = 10 * rng.normal(size=(40, 30))
    rows = np.repeat(places, 3, axis=0) + 0.1 * rng.normal(size=(120, 30))
    groups = np.repeat(np.arange(40), 3)
    args = (rows[:60], rows[60:], 0)
    together = two_sample_auc(
        *args, real_groups=groups[:60], synthetic_groups=groups[60:], n_resamples=200
    )
    divided = two_sample_auc(*args, n_resamples=200)
    assert divided.value > 0.9  # recognises the case, not the side
    assert together.low < 0.6
    assert (together.n, together.n_positive) == (40, 20)


def test_a_patient_on_both_sides_counts_once_in_the_resamples() -> None:
    rng = np.random.default_rng(4)
    real, synthetic = rng.normal(size=(2, 12, 3))
    names = np.array([f"patient_{i}" for i in range(12)])
    found = two_sample_auc(real, synthetic, 0, real_groups=names, synthetic_groups=names)
    assert found.low < found.value < found.high
    assert (found.n, found.n_positive) == (24, 12)


def test_errors_are_sentences() -> None:
    good = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(ValueError, match="Real slices have 2 features but synthetic ones 3"):
        two_sample_auc(good, np.zeros((4, 3)), 0)
    with pytest.raises(ValueError, match="synthetic features is not finite"):
        two_sample_auc(good, np.full((4, 2), np.nan), 0)
    with pytest.raises(ValueError, match="Groups are given for one side only"):
        two_sample_auc(good, good, 0, real_groups=np.arange(6))
    with pytest.raises(ValueError, match=r"come from 1 case"):
        two_sample_auc(good, good[:1], 0)
