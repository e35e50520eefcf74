"""How much an AUC scatters from sample to sample, where scores are normal.

Scores are taken as normal in both classes with the same spread (binormal, or any increasing
function of such scores). The variance of an AUC is then known in closed form, with no simulation:
it is that of Mann-Whitney's U, whose terms are probabilities of a pair of normal differences.
Hanley and McNeil's formula of 1982, for exponential scores, has the same form; the binormal one was
taken because it covers the correlation of two models too.
"""

import numpy as np
from scipy import stats
from scipy.integrate import quad

from neonet3d.errors import InputError
from neonet3d.metrics.interval import Interval, normal_quantile


def auc_standard_error(auc: float, n_positive: int, n_negative: int) -> float:
    """Standard error of the empirical AUC of binormal scores.

    Sources: Bamber, J. Math. Psychol. 12 (1975) 387, for U; Hanley & McNeil, Radiology 143 (1982)
    29, with Q1 = Q2 = P(two normal differences that correlate 1/2 are both positive).

    Args:
        auc: True AUC, strictly between 0 and 1.
        n_positive: Number of positive patients.
        n_negative: Number of negative ones.

    Raises:
        InputError: A value is out of range.
    """
    return float(np.sqrt(_covariance(auc, auc, 1.0, n_positive, n_negative)))


def difference_standard_error(
    auc_a: float, auc_b: float, correlation: float, n_positive: int, n_negative: int
) -> float:
    """Standard error of the difference of two models' AUCs on the same patients.

    Args:
        auc_a: True AUC of model A, strictly between 0 and 1.
        auc_b: True AUC of model B.
        correlation: Of the two models' (normal) scores within a class, above -1, at most 1.
        n_positive: Number of positive patients.
        n_negative: Number of negative ones.

    Raises:
        InputError: A value is out of range.
    """
    parts = (
        _covariance(auc_a, auc_a, 1.0, n_positive, n_negative),
        _covariance(auc_b, auc_b, 1.0, n_positive, n_negative),
        -2 * _covariance(auc_a, auc_b, correlation, n_positive, n_negative),
    )
    return float(np.sqrt(max(sum(parts), 0.0)))


def expected_interval(
    auc: float, n_positive: int, n_negative: int, *, confidence: float = 0.95
) -> Interval:
    """The interval that ``delong`` gives on average, about: logit scale, true standard error.

    Raises:
        InputError: A value is out of range.
    """
    half = normal_quantile(confidence) * auc_standard_error(auc, n_positive, n_negative)
    half /= auc * (1 - auc)
    logit = np.log(auc / (1 - auc))
    low, high = (float(1 / (1 + np.exp(-end))) for end in (logit - half, logit + half))
    method = f"expected of DeLong, binormal, logit scale, {confidence:.0%}"
    return Interval(auc, low, high, n_positive + n_negative, n_positive, method)


def _covariance(
    auc_a: float, auc_b: float, correlation: float, n_positive: int, n_negative: int
) -> float:
    """Of the empirical AUCs of two models; of a model with itself, its variance."""
    for value in (auc_a, auc_b):
        if not 0 < value < 1:
            raise InputError(f"The AUC {value:g} does not lie strictly between 0 and 1.")
    if not -1 < correlation <= 1:
        raise InputError(
            f"The correlation is {correlation:g}: give one above -1 and at most 1, such as 0.5."
        )
    if min(n_positive, n_negative) < 1:
        raise InputError(
            f"There are {n_positive} positive and {n_negative} negative patients. Plan some of "
            "each."
        )
    # Pairs (positive, negative) that share both patients, and one of them.
    same = _quadrant_excess(auc_a, auc_b, correlation)
    half = _quadrant_excess(auc_a, auc_b, correlation / 2)
    return (same + (n_positive + n_negative - 2) * half) / (n_positive * n_negative)


def _quadrant_excess(p: float, q: float, correlation: float) -> float:
    """P(X < h, Y < k) - p q of standard normals with this correlation, P(X < h) = p, P(Y < k) = q.

    Source: Plackett, Biometrika 41 (1954) 351: its derivative by the correlation is the density.
    With the arcsine of the correlation as variable the integral is smooth up to 1.
    """
    h, k = float(stats.norm.ppf(p)), float(stats.norm.ppf(q))

    def density(angle: float) -> float:
        across = (h - k) ** 2 / np.cos(angle) ** 2  # infinite at a right angle unless h = k
        along = 2 * h * k / (1 + np.sin(angle))
        return float(np.exp(-(across + along) / 2))

    value, _ = quad(density, 0, np.arcsin(correlation), epsabs=1e-12, epsrel=1e-10)
    return float(value / (2 * np.pi))
