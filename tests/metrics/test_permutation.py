import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from neonet3d.errors import InputError
from neonet3d.metrics.discrimination import delong_paired
from neonet3d.metrics.permutation import permute_labels, swap_models


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    labels = (np.arange(80) < 30).astype(int)
    signal = labels + rng.normal(size=80)
    # Rounded to make ties, the second on another scale.
    return labels, np.round(signal, 1), 10 * np.round(signal + rng.normal(size=80), 1)


def test_permuted_labels_agree_with_scipy() -> None:
    """Exact p of the 252 ways to label ten cases, against 20000 random ones."""
    labels = np.repeat([0, 1], 5)
    scores = np.array([0.1, 0.4, 0.2, 0.8, 0.3, 0.5, 0.9, 0.35, 0.4, 0.6])
    found = permute_labels(labels, scores, 20000, seed=0)
    exact = stats.permutation_test(
        (scores[labels == 1], scores[labels == 0]),
        lambda a, b: stats.mannwhitneyu(a, b).statistic,
        vectorized=False,
        alternative="greater",
        n_resamples=np.inf,
    )
    assert found.statistic == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found.p_value == pytest.approx(exact.pvalue, abs=4 * np.sqrt(0.25 / 20000))
    assert 0.02 < exact.pvalue < 0.3


def test_swapped_models_agree_with_scipy() -> None:
    """Exact p of the 256 ways to swap eight patients, on scores that are their ranks already."""
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [5, 3])
    a = stats.rankdata(labels + 0.5 * rng.normal(size=8))
    b = stats.rankdata(rng.normal(size=8))

    def statistic(x: np.ndarray, y: np.ndarray) -> float:
        return abs(roc_auc_score(labels, x) - roc_auc_score(labels, y))

    exact = stats.permutation_test(
        (a, b),
        statistic,
        permutation_type="samples",
        vectorized=False,
        alternative="greater",
        n_resamples=np.inf,
    )
    assert 0.01 < exact.pvalue < 0.5
    found = swap_models(labels, a, b, 20000, seed=1)
    assert abs(found.statistic) == pytest.approx(exact.statistic, abs=1e-12)
    assert found.p_value == pytest.approx(exact.pvalue, abs=4 * np.sqrt(0.25 / 20000))


def test_no_p_value_is_zero() -> None:
    labels, scores = np.repeat([0, 1], 20), np.arange(40.0)
    found = permute_labels(labels, scores, 999, seed=0)
    assert (found.statistic, found.p_value) == (1, 1 / 1000)


def test_the_swap_test_agrees_with_delong_and_replays(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    found = swap_models(*cohort, 5000, seed=0)
    delong = delong_paired(*cohort)
    assert found.statistic == pytest.approx(delong.difference, abs=1e-12)
    assert found.p_value == pytest.approx(delong.p_value, abs=0.03)
    labels, a, b = cohort
    assert swap_models(labels, b, a, 5000, seed=0).statistic == pytest.approx(-found.statistic)
    assert swap_models(*cohort, 5000, seed=0) == found
    assert swap_models(labels, np.exp(a), b, 5000, seed=0) == found  # ranks alone count


def test_models_that_rank_alike_have_p_one(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, a, _ = cohort
    found = swap_models(labels, a, 3 * a - 1, 500, seed=0)
    assert (found.statistic, found.p_value) == (0, 1)


def test_p_values_are_uniform_under_no_difference() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [60, 40])
    of_labels, of_swaps = [], []
    for seed in range(200):
        signal = labels + rng.normal(size=100)
        a, b = signal + rng.normal(size=(2, 100))
        of_swaps.append(swap_models(labels, a, b, 199, seed).p_value)
        of_labels.append(permute_labels(labels, rng.normal(size=100), 199, seed).p_value)
    assert stats.kstest(of_swaps, "uniform").pvalue > 0.01
    assert stats.kstest(of_labels, "uniform").pvalue > 0.01


def test_errors_are_sentences() -> None:
    with pytest.raises(InputError, match="n_resamples is 0"):
        permute_labels(np.array([0, 1]), np.arange(2.0), 0, seed=0)
    with pytest.raises(InputError, match="0 positive and 2 negative"):
        swap_models(np.zeros(2, int), np.arange(2.0), np.arange(2.0), 10, seed=0)
