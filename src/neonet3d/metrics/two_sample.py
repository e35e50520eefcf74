"""Classifier two-sample test: can a classifier tell synthetic cases from real ones?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neonet3d.errors import InputError
from neonet3d.metrics.cases import (
    Features,
    Groups,
    SyntheticFeatures,
    SyntheticGroups,
    case_of_slice,
    check_widths,
)
from neonet3d.metrics.interval import (
    Interval,
    check_resamples,
    normal_quantile,
    percentile_ends,
)
from neonet3d.metrics.ranking import score_interval, weighted_auc

FOLDS = 5
PENALTY_C = 1.0  # inverse strength of L2 on standardised features: scikit-learn's own, not tuned
MOST_STEPS = 2000


def two_sample_auc(
    real: Features,
    synthetic: SyntheticFeatures,
    seed: int,
    *,
    real_groups: Groups | None = None,
    synthetic_groups: SyntheticGroups | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """AUC of a logistic regression that tells synthetic rows from real ones it was not fitted on.

    0.5 means that it cannot tell them apart, 1 that it always can. Scores are out-of-fold from
    ``FOLDS`` folds (fewer where a side has fewer cases) that never divide a case: rows of one group
    stay together, *across both sides*, so a synthetic case that was drawn on a patient's mask
    carries that patient's group. Without groups every row is a case of its own. Features are
    standardised inside each fold.

    The interval is a percentile bootstrap over cases of the out-of-fold scores; that the folds
    share training rows is not in it, so it is short. Where the two sides are separated perfectly it
    would have no length: then it is Newcombe's score interval, which depends on the AUC and the
    numbers of cases alone, and ``method`` names it. An AUC below 0.5 is chance
    too.

    Sources: Lopez-Paz & Oquab, ICLR 2017 (the test; they count accuracy, we rank, for the two sets
    may differ in size); Newcombe, Stat. Med. 25 (2006) 559, method 5.

    Args:
        real: Features of real rows, ``[m, d]``.
        synthetic: Features of synthetic rows, ``[k, d]``.
        seed: Seed of the folds and of the resampling.
        real_groups: Case of each real row, ``[m]``.
        synthetic_groups: Case of each synthetic row, ``[k]``, in the same names.
        n_resamples: Number of bootstrap samples.
        confidence: Two-sided confidence, a fraction.

    Returns:
        The interval; ``n`` counts the cases of both sides, ``n_positive`` the synthetic ones. A
        case with rows on both sides counts on both.

    Raises:
        InputError: Widths differ, a feature is not finite, a side has under two cases, or groups
            are given for one side only.
    """
    check_widths(real, synthetic)
    check_resamples(n_resamples)
    z = normal_quantile(confidence)
    if (real_groups is None) != (synthetic_groups is None):
        raise InputError("Groups are given for one side only. Give the case of every row, or none.")
    n_real = int(case_of_slice(real, real_groups, "real").max()) + 1
    n_synthetic = int(case_of_slice(synthetic, synthetic_groups, "synthetic").max()) + 1
    if real_groups is None or synthetic_groups is None:
        group = np.arange(len(real) + len(synthetic))
    else:
        names = np.concatenate([real_groups, synthetic_groups])
        group = np.unique(names, return_inverse=True)[1]
    features = np.concatenate([real, synthetic]).astype(np.float64)
    is_synthetic = np.repeat([0, 1], [len(real), len(synthetic)])
    scores = _out_of_fold(features, is_synthetic, group, min(FOLDS, n_real, n_synthetic), seed)

    value = float(weighted_auc(is_synthetic, scores, np.ones((1, len(scores))))[0])
    if value in (0.0, 1.0):
        low, high = score_interval(value, n_synthetic, n_real, z)
        method = f"Newcombe score (perfectly separated), {confidence:.0%}"
    else:
        draws = _resampled(is_synthetic, scores, group, n_resamples, seed)
        low, high = percentile_ends(draws, confidence)
        method = f"case bootstrap, {n_resamples} resamples, {confidence:.0%}"
    return Interval(value, low, high, n_real + n_synthetic, n_synthetic, method)


def _out_of_fold(
    features: Float[np.ndarray, "n d"],
    label: Int[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    n_folds: int,
    seed: int,
) -> Float[np.ndarray, " n"]:
    """Log odds of "synthetic" for each row, by a model that saw no row of its case."""
    # Shuffled here: with shuffle=True, scikit-learn before 1.8 does not stratify.
    shuffled = np.random.default_rng(seed).permutation(group.max() + 1)[group]
    scores = np.zeros(len(label))
    for train, test in StratifiedGroupKFold(n_folds).split(features, label, shuffled):
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=PENALTY_C, class_weight="balanced", max_iter=MOST_STEPS),
        )
        scores[test] = model.fit(features[train], label[train]).decision_function(features[test])
    return scores


def _resampled(
    label: Int[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    n_resamples: int,
    seed: int,
) -> Float[np.ndarray, " b"]:
    """AUC of each resample of the cases, with all rows of a drawn case on both sides."""
    n = int(group.max()) + 1
    only = [np.bincount(group[label == side], minlength=n) > 0 for side in (0, 1)]
    # Cases of one side, of the other and of both are drawn apart, so no resample lacks a side.
    strata = [only[0] & ~only[1], only[1] & ~only[0], only[0] & only[1]]
    rng = np.random.default_rng([seed, 1])
    weights = np.zeros((n_resamples, n))
    for stratum in strata:
        size = int(stratum.sum())
        if size:
            weights[:, stratum] = rng.multinomial(size, np.full(size, 1 / size), size=n_resamples)
    return weighted_auc(label, scores, weights[:, group])
