"""Intervals for values that come in clusters: several scans, or several lesions, of one patient."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from neonet3d.errors import InputError
from neonet3d.metrics.interval import Interval, percentile_ends, wilson_ends

N_RESAMPLES = 2000
CONFIDENCE = 0.95


def bootstrap_patients(
    values: Float[np.ndarray, " n"],
    patients: Sequence[str],
    seed: int,
    statistic: Literal["mean", "median"],
) -> Interval:
    """Mean or median over values, with a percentile bootstrap interval that resamples patients.

    Scans of one patient are alike, so that to draw them one by one would promise too much. Every
    scan counts alike in the estimate; with one scan each it is ``bootstrap_mean``. nan stands for
    "not defined here" and is left out; infinity is the worst there is: a median stands it, a mean
    is refused. Of one patient there is no interval, and its ends are nan.

    Source: Davison & Hinkley, Bootstrap Methods and their Application (1997), section 3.8.

    Returns:
        ``n`` is the number of patients.

    Raises:
        InputError: Not one patient for each value, or the mean of an infinite value.
    """
    if len(patients) != values.size:
        raise InputError(
            f"There are {values.size} values but {len(patients)} patients. Give one for each."
        )
    if statistic == "mean" and np.isinf(values).any():
        raise InputError("A value is infinite, so there is no mean. Ask for the median.")
    used = np.flatnonzero(~np.isnan(values))
    order = used[np.argsort(values[used], kind="stable")]
    _, first, member = np.unique(
        np.asarray(patients, dtype=str)[used], return_index=True, return_inverse=True
    )
    # Patients in the order of their first value, as ``bootstrap_mean`` numbers its values.
    rank = np.argsort(np.argsort(first))
    of = np.zeros(values.size, dtype=int)
    of[used] = rank[member]
    n = len(first)
    method = f"percentile bootstrap over patients, {N_RESAMPLES} resamples, {CONFIDENCE:.0%}"
    whole = _estimate(values[order], np.ones((1, order.size)), statistic)[0]
    if n < 2:
        return Interval(float(whole), float("nan"), float("nan"), n, None, method)
    drawn = np.random.default_rng(seed).integers(n, size=(N_RESAMPLES, n))
    flat = np.bincount((drawn + n * np.arange(N_RESAMPLES)[:, None]).ravel(), minlength=drawn.size)
    weights = flat.reshape(N_RESAMPLES, n)[:, of[order]].astype(float)
    draws = _estimate(values[order], weights, statistic)
    low, high = _ends(draws)
    return Interval(float(whole), low, high, n, None, method)


def wilson_patients(
    successes: Int[np.ndarray, " p"], trials: Int[np.ndarray, " p"]
) -> Interval | None:
    """Share of successes over all patients, such as of lesions found, with Wilson's interval.

    The interval is that of as many independent trials as the patients are worth: trials divided by
    the design effect (the variance of the share between patients over the binomial one, at least
    1). Where all or none came out, that effect cannot be seen, and each patient counts as one
    trial.

    Source: Rao & Scott, Biometrics 48 (1992) 577, for the effective numbers.

    Args:
        successes, trials: Of each patient; patients without trials say nothing.

    Returns:
        ``n`` and ``n_positive`` count trials; None without any.
    """
    successes, trials = successes[trials > 0], trials[trials > 0]
    n, found, patients = int(trials.sum()), int(successes.sum()), len(trials)
    if not n:
        return None
    share = found / n
    if 0 < found < n and patients > 1:
        residuals = successes - share * trials
        between = patients / (patients - 1) * float((residuals**2).sum()) / n**2
        effect = max(between / (share * (1 - share) / n), 1.0)
    else:
        effect = n / patients
    low, high = wilson_ends(share, n / effect, CONFIDENCE)
    method = f"Wilson score, clustered by patient, {CONFIDENCE:.0%}"
    return Interval(share, low, high, n, found, method)


def _estimate(
    ascending: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, "b n"],
    statistic: Literal["mean", "median"],
) -> Float[np.ndarray, " b"]:
    """Weighted mean or median in each resample; nan of nothing."""
    if not ascending.size:
        return np.full(len(weights), np.nan)
    if statistic == "mean":
        means: Float[np.ndarray, " b"] = weights @ ascending / weights.sum(1)
        return means
    below = weights.cumsum(1)
    half = below[:, -1:] / 2
    # The middle value, or with an even number the two beside the middle.
    low, high = ascending[(below >= half).argmax(1)], ascending[(below > half).argmax(1)]
    with np.errstate(invalid="ignore"):
        return np.where(low == high, low, (low + high) / 2)


def _ends(draws: Float[np.ndarray, " b"]) -> tuple[float, float]:
    """Percentiles of the resampled estimates; between infinite ones nothing is interpolated."""
    if np.isfinite(draws).all():
        return percentile_ends(draws, CONFIDENCE)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)
