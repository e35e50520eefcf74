"""Estimates with their intervals: what every figure in a report is made of."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from neonet3d.errors import InputError


@dataclass(frozen=True)
class Interval:
    """An estimate, its two-sided interval and what it was computed from.

    Attributes:
        value: The point estimate.
        low: Lower end of the interval; nan where it cannot be known.
        high: Upper end; nan where it cannot be known.
        n: Number of independent units behind the estimate (patients, cases, values).
        n_positive: How many of them are positive; None where there are no classes.
        method: How the interval was made, with its confidence, for the caption.
    """

    value: float
    low: float
    high: float
    n: int
    n_positive: int | None
    method: str


def check_confidence(confidence: float) -> None:
    """Refuse a confidence level that is not a fraction.

    Raises:
        InputError: ``confidence`` is not strictly between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise InputError(
            f"The confidence level is {confidence}, but it is a fraction between 0 and 1: "
            "give 0.95 for 95 %."
        )


def normal_quantile(confidence: float) -> float:
    """The z with which a two-sided normal interval has this confidence (1.96 for 0.95).

    Raises:
        InputError: ``confidence`` is not strictly between 0 and 1.
    """
    check_confidence(confidence)
    return float(stats.norm.ppf((1 + confidence) / 2))


def percentile_ends(draws: Float[np.ndarray, " b"], confidence: float) -> tuple[float, float]:
    """Both ends of a percentile bootstrap interval from ``b`` resampled estimates.

    Source: Efron & Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Raises:
        InputError: ``confidence`` is not strictly between 0 and 1.
    """
    check_confidence(confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_mean(
    values: Float[np.ndarray, " n"],
    seed: int,
    n_resamples: int = 2000,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Mean with a percentile bootstrap interval, for instance of the Dice of each case.

    A nan stands for "not defined here" (Dice of two empty masks): it is left out, and ``n``
    counts what was used. One value has no interval, so its ends are nan; of no value at all the
    mean is nan too.

    Args:
        values: One value per independent unit, ``[n]``.
        seed: Seed of the resampling.
        n_resamples: Number of bootstrap samples.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: A value is infinite, or a setting is out of range.
    """
    if np.isinf(values).any():
        where = int(np.flatnonzero(np.isinf(values))[0])
        raise InputError(
            f"Value {where} of {values.size} is infinite, so there is no mean. Mark an undefined "
            "value as nan, which is left out."
        )
    check_resamples(n_resamples)
    method = f"percentile bootstrap, {n_resamples} resamples, {confidence:.0%}"
    used = np.asarray(values, dtype=np.float64)
    used = used[~np.isnan(used)]
    if used.size < 2:
        only = float(used[0]) if used.size else float("nan")
        return Interval(only, float("nan"), float("nan"), used.size, None, method)
    rng = np.random.default_rng(seed)
    means = used[rng.integers(used.size, size=(n_resamples, used.size))].mean(axis=1)
    low, high = percentile_ends(means, confidence)
    return Interval(float(used.mean()), low, high, used.size, None, method)


def check_resamples(n_resamples: int) -> None:
    """Refuse a bootstrap without resamples.

    Raises:
        InputError: ``n_resamples`` is below 1.
    """
    if n_resamples < 1:
        raise InputError(f"n_resamples is {n_resamples}: give at least 1, better 2000.")


def wilson(successes: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Share ``successes / n`` with Wilson's score interval, which is honest at 0 and at 1.

    Source: Wilson, JASA 22 (1927) 209; Newcombe, Stat. Med. 17 (1998) 857, method 3.

    Args:
        successes: How many of the trials came out, 0 to ``n``.
        n: Number of independent trials, at least 1.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: No trials, or more successes than trials.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(
            f"A share needs 1 or more trials and 0 to n successes, but got {successes} of {n}. "
            "Check that the selection is not empty."
        )
    share = successes / n
    low, high = wilson_ends(share, n, confidence)
    return Interval(share, low, high, n, successes, f"Wilson score, {confidence:.0%}")


def wilson_ends(share: float, n: float, confidence: float) -> tuple[float, float]:
    """Both ends of Wilson's interval for a share of ``n`` trials, which need not be whole.

    Raises:
        InputError: ``confidence`` is not strictly between 0 and 1.
    """
    z = normal_quantile(confidence)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and at n the ends are 0 and 1 in exact arithmetic; rounding must not move them inwards.
    low = 0.0 if share == 0 else float(centre - half)
    high = 1.0 if share == 1 else float(centre + half)
    return low, high
