"""Precision and recall of a generator: how much it draws lies among real cases, and how much of
the real cases it covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import cdist

from neonet3d.errors import InputError
from neonet3d.metrics.cases import Features, SyntheticFeatures, case_of_slice, check_widths
from neonet3d.metrics.interval import Interval, percentile_ends

NEIGHBOURS = 3  # of Kynkaanniemi et al., section 3
CONFIDENCE = 0.95
LEAST_CASES = 2 * (NEIGHBOURS + 1)


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision and recall, and what real cases reach against other real cases at the same n.

    Attributes:
        precision: Share of synthetic cases that lie on the manifold of the real ones.
        recall: Share of real cases that lie on the manifold of the synthetic ones.
        precision_of_real: Precision of other real cases in place of the synthetic ones.
        recall_of_real: Their recall.
    """

    precision: Interval
    recall: Interval
    precision_of_real: Interval
    recall_of_real: Interval


def precision_recall(
    real: Features,
    synthetic: SyntheticFeatures,
    seed: int,
    *,
    neighbours: int = NEIGHBOURS,
    n_splits: int = 200,
) -> PrecisionRecall:
    """Precision and recall by k-nearest-neighbour manifolds, one feature vector for each case.

    The manifold of a set is the union of balls around its cases, each as wide as the distance to
    its k-th nearest neighbour in the set. Its size depends on n, so synthetic and real cases are
    judged at the same n = k_cases = min(real, synthetic) // 2: each of many random splits draws
    disjoint real halves A and B and a synthetic half C, and compares A with C and, for the
    reference, A with B.

    Values are means over the splits and intervals their middle 95 %. For halves drawn without
    replacement that is about the interval of a figure on the whole sample (see ``floor.Spread``).
    A bootstrap would not do: a case drawn twice is its own nearest neighbour, and its ball has no
    width.

    Source: Kynkaanniemi et al., NeurIPS 2019, equations 1 and 2; splits are our choice.

    Args:
        real: Features of real cases, ``[m, d]``; scale them alike on both sides.
        synthetic: Features of synthetic cases, ``[k, d]``.
        seed: Seed of the splits.
        neighbours: Which neighbour sets the width of a ball.
        n_splits: Number of random splits.

    Returns:
        Intervals whose ``n`` is the number of cases on each side of a split.

    Raises:
        InputError: Widths differ, a feature is not finite, or too few cases for such a ball.
    """
    check_widths(real, synthetic)
    for features, name in ((real, "real"), (synthetic, "synthetic")):
        case_of_slice(features, None, name)
    size = min(len(real), len(synthetic)) // 2
    if neighbours < 1 or size < neighbours + 1:
        raise InputError(
            f"There are {len(real)} real and {len(synthetic)} synthetic cases, but precision and "
            f"recall with {neighbours} neighbours need at least {2 * (neighbours + 1)} of each."
        )
    everyone = np.concatenate([real, synthetic])
    distances = cdist(everyone, everyone)
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n_splits):
        order = rng.permutation(len(real))
        first, second = order[:size], order[size : 2 * size]
        drawn = len(real) + rng.permutation(len(synthetic))[:size]
        rows.append(
            [
                _on_manifold(distances, drawn, first, neighbours).mean(),
                _on_manifold(distances, first, drawn, neighbours).mean(),
                _on_manifold(distances, second, first, neighbours).mean(),
                _on_manifold(distances, first, second, neighbours).mean(),
            ]
        )
    shares = np.array(rows).T
    method = f"half-sampling of cases, {n_splits} splits, {CONFIDENCE:.0%}"
    return PrecisionRecall(
        *(
            Interval(float(values.mean()), *percentile_ends(values, CONFIDENCE), size, None, method)
            for values in shares
        )
    )


def _on_manifold(
    distances: Float[np.ndarray, "n n"],
    queries: Int[np.ndarray, " q"],
    members: Int[np.ndarray, " m"],
    neighbours: int,
) -> Bool[np.ndarray, " q"]:
    """Whether each query lies within the ball of a member; no query is a member."""
    among = distances[np.ix_(members, members)]
    # A member's nearest in the set is itself, at place 0.
    widths = np.partition(among, neighbours, axis=1)[:, neighbours]
    within: Bool[np.ndarray, " q"] = (distances[np.ix_(queries, members)] <= widths).any(axis=1)
    return within
