"""Planning: how sure a study of n patients can be of an AUC, and of a difference of two.

Everything here assumes the binormal scores of ``binormal``.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from neonet3d.errors import InputError
from neonet3d.metrics.binormal import (
    auc_standard_error,
    difference_standard_error,
    expected_interval,
)
from neonet3d.metrics.interval import Interval, normal_quantile

POWER = 0.8
MOST_PATIENTS = 10_000_000


@dataclass(frozen=True)
class Comparison:
    """What the paired DeLong test can see of two models on the same patients.

    Attributes:
        difference: AUC of the model less that of its rival.
        power: Probability that the two-sided test finds it.
        n_needed: Patients for a power of ``POWER``; None beyond ``MOST_PATIENTS``.
        n_positive_needed: How many of them are positive.
    """

    difference: float
    power: float
    n_needed: int | None
    n_positive_needed: int | None


@dataclass(frozen=True)
class StudyPlan:
    """What a study can answer.

    Attributes:
        auc: The AUC that is hoped for, with the interval to expect.
        standard_error: Of that AUC.
        correlation: Of the two models' scores within a class.
        smallest_difference: That the test finds with a power of ``POWER``; None where not even a
            rival that guesses would be told apart.
        comparison: With a rival; None where no difference is given.
    """

    auc: Interval
    standard_error: float
    correlation: float
    smallest_difference: float | None
    comparison: Comparison | None


def paired_power(
    auc_a: float,
    auc_b: float,
    correlation: float,
    n_positive: int,
    n_negative: int,
    *,
    confidence: float = 0.95,
) -> float:
    """Probability that the two-sided paired DeLong test finds a true difference.

    Source: Obuchowski & McClish, Stat. Med. 16 (1997) 1529, with the exact variance in place of
    their approximation. It takes the estimate as normal, which few positives do not quite allow.

    Args:
        auc_a: True AUC of model A.
        auc_b: True AUC of model B.
        correlation: Of the two models' scores within a class.
        n_positive: Number of positive patients.
        n_negative: Number of negative ones.
        confidence: 1 less the significance level.

    Raises:
        InputError: A value is out of range.
    """
    z = normal_quantile(confidence)
    shift = abs(auc_a - auc_b)
    if shift == 0:
        return 1 - confidence
    error = difference_standard_error(auc_a, auc_b, correlation, n_positive, n_negative)
    return float(stats.norm.sf(z - shift / error) + stats.norm.cdf(-z - shift / error))


def class_counts(n: int, prevalence: float) -> tuple[int, int]:
    """Positive and negative patients among ``n``, to the nearest patient.

    Raises:
        InputError: The prevalence is not a fraction, or a class would have under two patients.
    """
    if not 0 < prevalence < 1:
        raise InputError(
            f"The prevalence is {prevalence:g}, but it is a fraction between 0 and 1: give 0.34 "
            "for 34 %."
        )
    n_positive = round(n * prevalence)
    if min(n_positive, n - n_positive) < 2:
        raise InputError(
            f"{n} patients at a prevalence of {prevalence:g} are {max(n_positive, 0)} positive and "
            f"{max(n - n_positive, 0)} negative, but an AUC with an interval takes 2 of each. Plan "
            "more patients."
        )
    return n_positive, n - n_positive


def patients_needed(
    auc_a: float, auc_b: float, correlation: float, prevalence: float, *, confidence: float = 0.95
) -> int | None:
    """Patients at which the power of the paired DeLong test reaches ``POWER``.

    Where rounding the positives to whole patients makes the power rise and fall by a hair, a
    number a little below may do too.

    Raises:
        InputError: A value is out of range, or the AUCs are equal.
    """
    if auc_a == auc_b:
        raise InputError("The two AUCs are equal, so no number of patients shows a difference.")

    def enough(n: int) -> bool:
        counts = class_counts(n, prevalence)
        return paired_power(auc_a, auc_b, correlation, *counts, confidence=confidence) >= POWER

    # From here on each class has two patients, however the counts are rounded.
    fewest = int(np.ceil(2.5 / min(prevalence, 1 - prevalence)))
    if enough(fewest):
        return fewest
    low, high = fewest, 2 * fewest
    while not enough(high):
        if high > MOST_PATIENTS:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def plan_study(
    n: int,
    prevalence: float,
    auc: float,
    *,
    difference: float | None = None,
    correlation: float = 0.5,
    confidence: float = 0.95,
) -> StudyPlan:
    """What ``n`` patients can show of an AUC, and of a rival whose AUC is lower by ``difference``.

    Args:
        n: Number of patients, each with one score.
        prevalence: Share of them that is positive, a fraction.
        auc: The AUC that is hoped for, above 0.5 and below 1.
        difference: From the rival's AUC, which is at least 0.5; None for no rival.
        correlation: Of the two models' scores within a class; 0.5 is our assumption for two models
            of the same images. A lower one asks for more patients.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: A value is out of range.
    """
    if not 0.5 < auc < 1:
        raise InputError(
            f"The AUC to plan for is {auc:g}. Give one above 0.5 (guessing) and below 1."
        )
    if difference is not None and not (difference > 0 and auc - difference >= 0.5 - 1e-12):
        raise InputError(
            f"A rival that is {difference:g} worse than {auc:g} has an AUC of "
            f"{auc - difference:g}. Give a difference above 0 that leaves the rival at least 0.5."
        )
    if not -1 < correlation < 1:
        raise InputError(
            f"The correlation is {correlation:g}: give one above -1 and below 1, such as 0.5."
        )
    if n > MOST_PATIENTS:
        raise InputError(f"{n} patients are too many to plan for: give {MOST_PATIENTS} at most.")
    n_positive, n_negative = class_counts(n, prevalence)
    comparison = None
    if difference is not None:
        rival = auc - difference
        needed = patients_needed(auc, rival, correlation, prevalence, confidence=confidence)
        comparison = Comparison(
            difference=difference,
            power=paired_power(
                auc, rival, correlation, n_positive, n_negative, confidence=confidence
            ),
            n_needed=needed,
            n_positive_needed=None if needed is None else class_counts(needed, prevalence)[0],
        )

    def excess(smaller: float) -> float:
        return (
            paired_power(
                auc, auc - smaller, correlation, n_positive, n_negative, confidence=confidence
            )
            - POWER
        )

    most = auc - 0.5
    seen = excess(most) >= 0
    return StudyPlan(
        auc=expected_interval(auc, n_positive, n_negative, confidence=confidence),
        standard_error=auc_standard_error(auc, n_positive, n_negative),
        correlation=correlation,
        smallest_difference=float(brentq(excess, 1e-6, most)) if seen else None,
        comparison=comparison,
    )
