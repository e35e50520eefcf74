import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from neonet3d.metrics.discrimination import (
    auc,
    auc_over_patients,
    bootstrap_auc,
    delong,
    delong_paired,
)

# Hanley & McNeil, Radiology 143 (1982) 29, table I: CT ratings of 58 normal, 51 abnormal cases.
RATINGS = np.concatenate(
    [
        np.repeat(np.arange(1.0, 6.0), [33, 6, 6, 11, 2]),
        np.repeat(np.arange(1.0, 6.0), [3, 2, 2, 11, 33]),
    ]
)
TRUTH = np.repeat([0, 1], [58, 51])


def psi(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The O(n^2) table of wins: 1, 1/2 for a tie, 0."""
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return (np.sign(difference) + 1) / 2


def covariance_by_hand(labels: np.ndarray, all_scores: list[np.ndarray]) -> np.ndarray:
    """DeLong's covariance of the AUCs (1988, equations 4-5) from the full tables."""
    tables = [psi(labels, scores) for scores in all_scores]
    s10 = np.cov([table.mean(axis=1) for table in tables])
    s01 = np.cov([table.mean(axis=0) for table in tables])
    return np.atleast_2d(s10 / tables[0].shape[0] + s01 / tables[0].shape[1])


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    labels = (np.arange(128) < 44).astype(int)
    signal = labels + rng.normal(size=128)
    # Rounded to make ties.
    return labels, np.round(signal, 1), np.round(signal + rng.normal(size=128), 1)


def test_auc_published_and_sklearn_with_ties(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    assert auc(TRUTH, RATINGS) == pytest.approx(0.893, abs=5e-4)
    labels, scores, _ = cohort
    assert np.unique(scores).size < scores.size
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-14)
    assert auc(labels.astype(bool), scores.astype(np.float32)) == pytest.approx(auc(labels, scores))


def test_auc_invariances(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, scores, _ = cohort
    assert auc(labels, np.exp(scores)) == auc(labels, scores)
    assert auc(1 - labels, -scores) == pytest.approx(auc(labels, scores), abs=1e-14)
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores), abs=1e-14)
    assert auc(labels, np.zeros(128)) == 0.5


def test_delong_equals_the_hand_formula(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, scores, _ = cohort
    interval = delong(labels, scores)
    value = psi(labels, scores).mean()
    error = np.sqrt(covariance_by_hand(labels, [scores])[0, 0])
    half = stats.norm.ppf(0.975) * error / (value * (1 - value))
    logit = np.log(value / (1 - value))
    assert interval.value == pytest.approx(value, abs=1e-12)
    assert interval.low == pytest.approx(1 / (1 + np.exp(half - logit)), abs=1e-12)
    assert interval.high == pytest.approx(1 / (1 + np.exp(-half - logit)), abs=1e-12)
    assert (interval.n, interval.n_positive) == (128, 44)
    assert interval.method == "DeLong, logit scale, 95%"


def test_delong_covers_the_true_auc() -> None:
    rng = np.random.default_rng(0)
    labels = (np.arange(60) < 20).astype(int)
    truth = stats.norm.cdf(1.6 / np.sqrt(2))
    intervals = [delong(labels, rng.normal(size=60) + 1.6 * labels) for _ in range(300)]
    coverage = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.92 < coverage < 0.98


def test_separation_and_ties_get_an_interval_with_length() -> None:
    labels = np.repeat([0, 1], [10, 5])
    perfect = delong(labels, np.arange(15.0))
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert 0.6 < perfect.low < 0.85
    assert "Newcombe" in perfect.method
    reversed_ = delong(labels, -np.arange(15.0))
    assert reversed_.high == pytest.approx(1 - perfect.low, abs=1e-9)
    tied = delong(labels, np.zeros(15))
    assert tied.low < 0.3 < 0.5 < 0.7 < tied.high


def test_paired_equals_the_hand_formula(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, a, b = cohort
    comparison = delong_paired(labels, a, b)
    covariance = covariance_by_hand(labels, [a, b])
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference = psi(labels, a).mean() - psi(labels, b).mean()
    assert comparison.difference == pytest.approx(difference, abs=1e-12)
    assert comparison.difference > 0  # A is the less noisy model: the sign is A - B
    expected = 2 * stats.norm.sf(abs(difference) / error)
    assert comparison.p_value == pytest.approx(expected, abs=1e-12)
    assert comparison.interval.high - difference == pytest.approx(1.959963984540054 * error)
    swapped = delong_paired(labels, b, a)
    assert swapped.difference == pytest.approx(-difference, abs=1e-12)
    assert swapped.p_value == pytest.approx(comparison.p_value, abs=1e-12)


def test_paired_identical_ranking_has_p_one(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, a, _ = cohort
    for same in (a, np.exp(a), 3 * a - 1):
        comparison = delong_paired(labels, a, same)
        assert (comparison.difference, comparison.p_value) == (0.0, 1.0)
        assert (comparison.interval.low, comparison.interval.high) == (0.0, 0.0)


def test_paired_without_variance_says_that_it_is_not_defined() -> None:
    labels = np.repeat([0, 1], [6, 4])
    comparison = delong_paired(labels, np.arange(10.0), np.zeros(10))
    assert comparison.difference == 0.5
    assert np.isnan([comparison.p_value, comparison.interval.low, comparison.interval.high]).all()
    assert "not defined" in comparison.interval.method


def test_paired_p_values_are_uniform_under_no_difference() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [60, 40])
    p_values = []
    for _ in range(300):
        signal = labels + rng.normal(size=100)
        a, b = signal + rng.normal(size=(2, 100))
        p_values.append(delong_paired(labels, a, b).p_value)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_bootstrap_agrees_with_delong_and_replays(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, scores, _ = cohort
    interval = bootstrap_auc(labels, scores, 4000, seed=0)
    analytic = delong(labels, scores)
    assert interval.value == analytic.value
    assert interval.low == pytest.approx(analytic.low, abs=0.02)
    assert interval.high == pytest.approx(analytic.high, abs=0.02)
    assert interval == bootstrap_auc(labels, scores, 4000, seed=0)
    assert interval != bootstrap_auc(labels, scores, 4000, seed=1)


def test_bootstrap_counts_patients_and_not_rows(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, scores, _ = cohort
    once = bootstrap_auc(labels, scores, 2000, seed=0)
    patients = np.repeat(np.arange(128), 9)
    nine = bootstrap_auc(
        np.repeat(labels, 9), np.repeat(scores, 9), 2000, seed=0, patients=patients
    )
    # Nine copies of every row are no new information.
    assert (nine.n, nine.n_positive) == (128, 44)
    assert (nine.low, nine.high) == pytest.approx((once.low, once.high), abs=1e-12)
    named = bootstrap_auc(
        labels, scores, 2000, seed=0, patients=np.array([f"p{i:03d}" for i in range(128)])
    )
    assert named == once


def test_errors_are_sentences() -> None:
    two = np.array([0, 1])
    with pytest.raises(ValueError, match="0 positive and 2 negative"):
        auc(np.zeros(2, int), np.arange(2.0))
    with pytest.raises(ValueError, match="at least 2 of each"):
        delong(two, np.arange(2.0))
    with pytest.raises(ValueError, match=r"Code positive as 1"):
        auc(np.array([1, 2]), np.arange(2.0))
    with pytest.raises(ValueError, match="score of case 1 is nan"):
        auc(two, np.array([0.0, np.nan]))
    with pytest.raises(ValueError, match="one label and one score"):
        auc(two, np.arange(3.0))
    with pytest.raises(ValueError, match="Patient 5 has both labels"):
        bootstrap_auc(two, np.arange(2.0), 10, seed=0, patients=np.array([5, 5]))


def test_scans_of_a_patient_are_no_further_patients() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    scores = labels + rng.normal(size=40)
    alone = [f"p{i}" for i in range(40)]
    assert auc_over_patients(labels, scores, alone, seed=0) == delong(labels, scores)
    several = auc_over_patients(
        np.repeat(labels, 5), np.repeat(scores, 5), [p for p in alone for _ in range(5)], seed=0
    )
    once = bootstrap_auc(labels, scores, 2000, 0)
    assert (several.n, several.value) == (40, pytest.approx(once.value))
    assert several.high - several.low == pytest.approx(once.high - once.low, rel=0.1)
