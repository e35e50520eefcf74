"""How well a score separates positives from negatives: the AUC, its intervals and comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy import stats

from neonet3d.errors import InputError
from neonet3d.metrics.clustered import N_RESAMPLES
from neonet3d.metrics.interval import (
    Interval,
    check_resamples,
    normal_quantile,
    percentile_ends,
)
from neonet3d.metrics.ranking import (
    Labels,
    Scores,
    placements,
    score_interval,
    split_by_class,
    weighted_auc,
)


@dataclass(frozen=True)
class PairedComparison:
    """AUC of model A minus AUC of model B on the same cases.

    Attributes:
        difference: A - B; positive where A is better.
        interval: The difference with its interval.
        p_value: Two-sided, of no difference; nan where the test is not defined.
    """

    difference: float
    interval: Interval
    p_value: float


def auc(labels: Labels, scores: Scores) -> float:
    """Area under the ROC curve: P(positive scores higher) + P(tie) / 2, by Mann-Whitney's U.

    Source: Hanley & McNeil, Radiology 143 (1982) 29.

    Args:
        labels: 1 (or True) for positive, 0 for negative, ``[n]``.
        scores: Any finite score, higher means more likely positive, ``[n]``.

    Raises:
        InputError: Lengths differ, a score is not finite, or only one class is there.
    """
    positive, negative = split_by_class(labels, scores)
    of_positive, _ = placements(positive, negative)
    return float(of_positive.mean())


def delong(labels: Labels, scores: Scores, confidence: float = 0.95) -> Interval:
    """AUC with DeLong's standard error and an interval on the logit scale.

    The interval is logit(AUC) +- z SE / (AUC (1 - AUC)), brought back, so that it stays inside
    (0, 1) and is asymmetric near 1, where the plain interval covers too rarely. Where DeLong's
    variance is zero (perfect separation either way, all scores tied) that interval would have no
    length, which no small sample justifies: then it is Newcombe's score interval, which depends
    on the AUC and the counts alone, and ``method`` names it.

    Rows are taken as independent: one row for each patient.

    Sources: DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988) 837; midranks after Sun & Xu,
    IEEE Signal Process. Lett. 21 (2014) 1389; logit after Pepe (2003), section 5.2; Newcombe,
    Stat. Med. 25 (2006) 559, method 5.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``.
        scores: Finite, higher means more likely positive, ``[n]``.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: As ``auc``; or a class has one case only, so that it has no variance.
    """
    positive, negative = split_by_class(labels, scores, at_least=2)
    return placement_interval(*placements(positive, negative), confidence)


def placement_interval(
    of_positive: Float[np.ndarray, " p"], of_negative: Float[np.ndarray, " q"], confidence: float
) -> Interval:
    """DeLong's interval of ``delong`` from placement values.

    Args:
        of_positive: Share of negatives below each positive, or its mean over repetitions, ``[p]``.
        of_negative: Share of positives above each negative, ``[q]``.
        confidence: Two-sided confidence, a fraction.
    """
    z = normal_quantile(confidence)
    value = float(of_positive.mean())
    # Compared as stored, not by their variance: equal placements are equal to the last bit.
    if np.ptp(of_positive) == 0 and np.ptp(of_negative) == 0:
        low, high = score_interval(value, of_positive.size, of_negative.size, z)
        method = f"Newcombe score (DeLong variance is zero), {confidence:.0%}"
    else:
        error = np.sqrt(_variance_of_mean(of_positive) + _variance_of_mean(of_negative))
        half = z * error / (value * (1 - value))
        logit = np.log(value / (1 - value))
        low, high = (float(1 / (1 + np.exp(-end))) for end in (logit - half, logit + half))
        method = f"DeLong, logit scale, {confidence:.0%}"
    n = of_positive.size + of_negative.size
    return Interval(value, low, high, n, of_positive.size, method)


def delong_paired(
    labels: Labels, scores_a: Scores, scores_b: Scores, confidence: float = 0.95
) -> PairedComparison:
    """Compare the AUCs of two models on the same cases by DeLong's paired test; A minus B.

    z = (AUC_A - AUC_B) / SE, with SE from the differences of the two models' placement values,
    which is DeLong's covariance form in fewer operations. The interval is difference +- z SE, cut
    to [-1, 1]. Models that rank alike get difference 0 and p = 1. Where the variance is zero but
    the AUCs differ (one separates perfectly, the other ties every case) the test is not defined:
    p and both ends are nan, and ``method`` says so.

    Source: DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988) 837, equations 4-6.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``.
        scores_a: Scores of model A for those cases, ``[n]``.
        scores_b: Scores of model B for those cases, ``[n]``.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: As ``delong``.
    """
    z = normal_quantile(confidence)
    positive_a, negative_a = split_by_class(labels, scores_a, at_least=2)
    positive_b, negative_b = split_by_class(labels, scores_b, at_least=2)
    placed_a = placements(positive_a, negative_a)
    placed_b = placements(positive_b, negative_b)
    gain_positive, gain_negative = placed_a[0] - placed_b[0], placed_a[1] - placed_b[1]
    difference = float(gain_positive.mean())
    method = f"paired DeLong, {confidence:.0%}"
    if np.allclose(gain_positive, gain_positive[0], rtol=0, atol=1e-12) and np.allclose(
        gain_negative, gain_negative[0], rtol=0, atol=1e-12
    ):
        same = abs(difference) < 1e-12
        difference = 0.0 if same else difference
        end, p_value = (0.0, 1.0) if same else (float("nan"), float("nan"))
        low = high = end
        method += "" if same else " (not defined: zero variance)"
    else:
        error = np.sqrt(_variance_of_mean(gain_positive) + _variance_of_mean(gain_negative))
        low, high = max(-1.0, difference - z * error), min(1.0, difference + z * error)
        p_value = float(2 * stats.norm.sf(abs(difference) / error))
    interval = Interval(difference, float(low), float(high), labels.size, positive_a.size, method)
    return PairedComparison(difference, interval, p_value)


def require_one_label_each(labels: Labels, patients: Shaped[np.ndarray, " n"]) -> None:
    """Patients are drawn anew as positive or negative ones, so each must be one of the two.

    Raises:
        InputError: a patient has both labels.
    """
    names, patient_of_row = np.unique(patients, return_inverse=True)
    n_positive_rows = np.bincount(patient_of_row, weights=labels)
    mixed = (n_positive_rows > 0) & (n_positive_rows < np.bincount(patient_of_row))
    if mixed.any():
        raise InputError(
            f"Patient {names[mixed][0]} has both labels, and {int(mixed.sum())} patient(s) in all "
            "do. Give every row the label of its patient, or give one patient id for each lesion."
        )


def bootstrap_auc(
    labels: Labels,
    scores: Scores,
    n_resamples: int,
    seed: int,
    *,
    patients: Shaped[np.ndarray, " n"] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """AUC with a percentile interval over patients drawn anew within each class.

    Positive and negative patients are drawn apart, so that every resample has the class counts of
    the sample; all rows of a drawn patient come along. At AUC 1 (or 0) every resample is 1 too and
    the interval has no length: read ``delong`` there.

    Source: Efron & Tibshirani (1993), chapters 8 and 13.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``; one label for each patient.
        scores: Finite, higher means more likely positive, ``[n]``.
        n_resamples: Number of bootstrap samples.
        seed: Seed of the draws.
        patients: Patient of each row, ``[n]``; None where every row is its own patient.
        confidence: Two-sided confidence, a fraction.

    Returns:
        The interval; ``n`` and ``n_positive`` count patients.

    Raises:
        InputError: As ``auc``; or a patient has both labels.
    """
    check_resamples(n_resamples)
    value = auc(labels, scores)
    rows = np.arange(labels.size) if patients is None else patients
    require_one_label_each(labels, rows)
    names, patient_of_row = np.unique(rows, return_inverse=True)
    is_positive = np.bincount(patient_of_row, weights=labels) > 0
    rng = np.random.default_rng(seed)
    weights = np.zeros((n_resamples, names.size))
    for stratum in (is_positive, ~is_positive):
        size = int(stratum.sum())
        weights[:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=n_resamples)
    draws = weighted_auc(labels, scores, weights[:, patient_of_row])
    low, high = percentile_ends(draws, confidence)
    method = f"stratified patient bootstrap, {n_resamples} resamples, {confidence:.0%}"
    return Interval(value, low, high, names.size, int(is_positive.sum()), method)


def auc_over_patients(
    labels: Labels, scores: Scores, patients: Sequence[str], *, seed: int
) -> Interval:
    """``delong`` where every patient has one row, and ``bootstrap_auc`` where one has several.

    Raises:
        InputError: As those.
    """
    if len(set(patients)) == len(patients):
        return delong(labels, scores)
    return bootstrap_auc(labels, scores, N_RESAMPLES, seed, patients=np.array(patients))


def _variance_of_mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.var(ddof=1) / values.size)
