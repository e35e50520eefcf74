"""Ranks of positives among negatives: the arithmetic under every figure on an AUC."""

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import stats
from scipy.optimize import brentq

from neonet3d.errors import InputError

Labels = Integer[np.ndarray, " n"] | Bool[np.ndarray, " n"]
Scores = Float[np.ndarray, " n"]


def weighted_auc(
    labels: Labels, scores: Scores, weights: Float[np.ndarray, "b n"]
) -> Float[np.ndarray, " b"]:
    """AUC for each row of case weights: negatives below each score level, + half the tied."""
    order = np.argsort(scores, kind="stable")
    levels = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    weights = weights[:, order]
    positive = np.add.reduceat(weights * (labels[order] == 1), levels, axis=1)
    negative = np.add.reduceat(weights * (labels[order] == 0), levels, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    wins: Float[np.ndarray, " b"] = (positive * below).sum(axis=1)
    wins /= positive.sum(axis=1) * negative.sum(axis=1)
    return wins


def placements(
    positive: Float[np.ndarray, " p"], negative: Float[np.ndarray, " q"]
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " q"]]:
    """Share of negatives below each positive, and of positives above each negative, by midranks."""
    joint = stats.rankdata(np.concatenate([positive, negative]))
    below = joint[: positive.size] - stats.rankdata(positive)
    above = positive.size - (joint[positive.size :] - stats.rankdata(negative))
    return below / negative.size, above / positive.size


def score_interval(value: float, n_positive: int, n_negative: int, z: float) -> tuple[float, float]:
    """Score interval of an AUC: all theta with |value - theta| <= z SE(theta)."""
    typical = (n_positive + n_negative) / 2

    def excess(theta: float) -> float:
        spread = 1 + (typical - 1) * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        variance = theta * (1 - theta) * spread / (n_positive * n_negative)
        return (value - theta) ** 2 - z**2 * variance

    # The score equation also holds at theta = value = 0 or 1; the other root lies between.
    tiny = 1e-12
    low = brentq(excess, tiny, value - tiny) if value > 0 else 0.0
    high = brentq(excess, value + tiny, 1 - tiny) if value < 1 else 1.0
    return float(low), float(high)


def split_by_class(
    labels: Labels, scores: Scores, at_least: int = 1
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " q"]]:
    """Scores of the positives and of the negatives, after everything that can be wrong."""
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise InputError(
            f"The labels have the shape {labels.shape} and the scores {scores.shape}. Give one "
            "label and one score for each case, both [n]."
        )
    if not np.isin(labels, (0, 1)).all():
        odd = sorted({str(value) for value in labels[~np.isin(labels, (0, 1))]})
        raise InputError(f"The labels hold {', '.join(odd)}. Code positive as 1 and negative as 0.")
    if not np.isfinite(scores).all():
        where = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(
            f"The score of case {where} is {scores[where]}. Give every case a finite score, or "
            "leave the case out of every model that you compare."
        )
    values = np.asarray(scores, dtype=np.float64)
    positive, negative = values[labels == 1], values[labels == 0]
    if min(positive.size, negative.size) < at_least:
        raise InputError(
            f"There are {positive.size} positive and {negative.size} negative cases, but at least "
            f"{at_least} of each are needed. Pool the folds, or check the labels."
        )
    return positive, negative
