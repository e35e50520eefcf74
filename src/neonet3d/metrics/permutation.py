"""Permutation tests of an AUC: no distribution is assumed, only that something may be exchanged."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from neonet3d.metrics.interval import check_resamples
from neonet3d.metrics.ranking import Labels, Scores, split_by_class

BLOCK = 1000  # permutations at a time, so that memory does not grow with their number


@dataclass(frozen=True)
class PermutationTest:
    """A statistic and how often permuted data reach it.

    Attributes:
        statistic: Of the data as they are.
        p_value: (1 + permutations that reach it) / (1 + permutations), never 0.
        n_permutations: Number of random permutations.
    """

    statistic: float
    p_value: float
    n_permutations: int


def permute_labels(
    labels: Labels, scores: Scores, n_permutations: int, seed: int
) -> PermutationTest:
    """Is the AUC better than chance? One-sided: how often permuted labels give it or more.

    It permutes the labels of given scores. It is the test of a model that never saw these labels;
    out-of-fold scores are taken as given, and their models saw the labels of other folds.

    Source: Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39, for adding one.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        scores: Finite, higher means more likely positive, ``[n]``.
        n_permutations: Number of random permutations; p is at least 1 / (1 + that).
        seed: Seed of the permutations.

    Raises:
        InputError: Lengths differ, a score is not finite, or only one class is there.
    """
    check_resamples(n_permutations)
    split_by_class(labels, scores)
    truth = np.asarray(labels) == 1
    ranks = stats.rankdata(scores)
    observed = float(_auc_of_ranks(ranks, truth))
    rng = np.random.default_rng(seed)
    reached = 0
    for size in _blocks(n_permutations):
        shuffled = rng.permuted(np.tile(ranks, (size, 1)), axis=1)
        reached += int((_auc_of_ranks(shuffled, truth) >= observed - 1e-12).sum())
    return PermutationTest(observed, (1 + reached) / (1 + n_permutations), n_permutations)


def swap_models(
    labels: Labels, scores_a: Scores, scores_b: Scores, n_permutations: int, seed: int
) -> PermutationTest:
    """Do two models' AUCs differ? Two-sided, by swapping the models' ranks of random patients.

    Scores become ranks within their model first, so that two scales may be swapped. What is
    tested is that the models are exchangeable for each patient: equal AUCs with ROC curves of
    another shape are not exchangeable, though the test, which looks at the AUC alone, has little
    power to see that. ``statistic`` is AUC of A minus AUC of B.

    Sources: Venkatraman & Begg, Biometrika 83 (1996) 835; Bandos, Rockette & Gur, Stat. Med. 24
    (2005) 2873, for the difference of AUCs; Phipson & Smyth (2010) for adding one.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        scores_a: Scores of model A for those cases, ``[n]``.
        scores_b: Scores of model B for those cases, ``[n]``.
        n_permutations: Number of random permutations; p is at least 1 / (1 + that).
        seed: Seed of the swaps.

    Raises:
        InputError: As ``permute_labels``.
    """
    check_resamples(n_permutations)
    split_by_class(labels, scores_a)
    split_by_class(labels, scores_b)
    truth = np.asarray(labels) == 1
    a, b = stats.rankdata(scores_a), stats.rankdata(scores_b)
    observed = _difference(a, b, truth)
    rng = np.random.default_rng(seed)
    reached = 0
    for size in _blocks(n_permutations):
        swap = rng.random((size, a.size)) < 0.5
        drawn = _difference(np.where(swap, b, a), np.where(swap, a, b), truth)
        reached += int((np.abs(drawn) >= abs(observed) - 1e-12).sum())
    return PermutationTest(float(observed), (1 + reached) / (1 + n_permutations), n_permutations)


def _difference(
    a: Float[np.ndarray, "*b n"], b: Float[np.ndarray, "*b n"], truth: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "*b"]:
    """AUC of A minus AUC of B; swapped ranks are ranked again, for they may be tied or missing."""
    difference: Float[np.ndarray, "*b"] = _auc_of_ranks(
        stats.rankdata(a, axis=-1), truth
    ) - _auc_of_ranks(stats.rankdata(b, axis=-1), truth)
    return difference


def _auc_of_ranks(
    ranks: Float[np.ndarray, "*b n"], truth: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "*b"]:
    """Mann-Whitney's U from midranks, over the number of pairs."""
    n_positive = int(truth.sum())
    wins = ranks @ truth.astype(np.float64) - n_positive * (n_positive + 1) / 2
    value: Float[np.ndarray, "*b"] = wins / (n_positive * (truth.size - n_positive))
    return value


def _blocks(total: int) -> Iterator[int]:
    for start in range(0, total, BLOCK):
        yield min(BLOCK, total - start)
