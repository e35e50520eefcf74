"""Kernel inception distance: an unbiased distance between distributions of features."""

import numpy as np
from jaxtyping import Bool, Float, Int

from neonet3d.errors import InputError
from neonet3d.metrics.cases import (
    Features,
    Groups,
    SyntheticFeatures,
    SyntheticGroups,
    case_of_slice,
    check_widths,
)
from neonet3d.metrics.interval import Interval, check_resamples, percentile_ends

_ROWS_AT_ONCE = 1024  # bounds the kernel block in memory to rows x m


def kid(
    real: Features,
    synthetic: SyntheticFeatures,
    *,
    real_groups: Groups | None = None,
    synthetic_groups: SyntheticGroups | None = None,
    shared: bool = False,
) -> float:
    """Squared maximum mean discrepancy, unbiased, with the kernel (x.y / d + 1)^3.

    mean k(real, real') + mean k(synthetic, synthetic') - 2 mean k(real, synthetic), where the
    first two means run over pairs of *different cases*: slices of one case resemble each other,
    and counting them as independent would report a distance between two halves of one cohort.
    Without groups every row is a case, and this is the published estimator. It is 0 on average
    for equal distributions at any n, so a small negative value is no mistake.

    Source: Binkowski et al., ICLR 2018 (KID, section 4); Gretton et al., JMLR 13 (2012) 723,
    lemma 6.

    Args:
        real: Features of real slices, ``[m, d]``.
        synthetic: SyntheticFeatures of synthetic slices, ``[k, d]``.
        real_groups: Case of each real slice, ``[m]``.
        synthetic_groups: Case of each synthetic slice, ``[k]``.
        shared: Whether a group of one name on both sides is one patient: synthetic cases drawn on
            a real case's mask. Such pairs are left out of the third mean too, as they are of the
            first two; they resemble each other, and would make KID too small.

    Raises:
        InputError: Widths differ, a feature is not finite, or a side has under two cases.
    """
    check_widths(real, synthetic)
    real_case = case_of_slice(real, real_groups, "real")
    synthetic_case = case_of_slice(synthetic, synthetic_groups, "synthetic")
    cross = CaseKernel(real, real_case, synthetic, synthetic_case)
    if shared:
        cross.leave_out(_same_names(real_groups, synthetic_groups))
    value = weighted_mmd2(
        CaseKernel(real, real_case, real, real_case),
        CaseKernel(synthetic, synthetic_case, synthetic, synthetic_case),
        cross,
        np.ones((1, real_case.max() + 1)),
        np.ones((1, synthetic_case.max() + 1)),
    )
    return float(value[0])


def kid_interval(
    real: Features,
    synthetic: SyntheticFeatures,
    seed: int,
    *,
    real_groups: Groups | None = None,
    synthetic_groups: SyntheticGroups | None = None,
    shared: bool = False,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """KID of all slices, with a percentile bootstrap over cases on both sides.

    A case drawn twice is not paired with itself, so that the resamples stay unbiased (a plain
    bootstrap of KID drifts upwards). Where the two distributions agree the interval is wider than
    it need be: it errs towards "cannot tell apart".

    Source: Arcones & Gine, Ann. Stat. 20 (1992) 655, on bootstrapping U-statistics.

    Args:
        real: Features of real slices, ``[m, d]``.
        synthetic: SyntheticFeatures of synthetic slices, ``[k, d]``.
        seed: Seed of the resampling.
        real_groups: Case of each real slice, ``[m]``.
        synthetic_groups: Case of each synthetic slice, ``[k]``.
        shared: As of ``kid``.
        n_resamples: Number of bootstrap samples.
        confidence: Two-sided confidence, a fraction.

    Returns:
        The interval; ``n`` is the number of cases of both sides together.

    Raises:
        InputError: As ``kid``; or a side has under three cases.
    """
    check_widths(real, synthetic)
    check_resamples(n_resamples)
    real_case = case_of_slice(real, real_groups, "real")
    synthetic_case = case_of_slice(synthetic, synthetic_groups, "synthetic")
    n_real, n_synthetic = int(real_case.max()) + 1, int(synthetic_case.max()) + 1
    if min(n_real, n_synthetic) < 3:
        raise InputError(
            f"There are {n_real} real and {n_synthetic} synthetic cases, but an interval over "
            "cases needs at least 3 of each. Add cases, or report kid without an interval."
        )
    kernels = (
        CaseKernel(real, real_case, real, real_case),
        CaseKernel(synthetic, synthetic_case, synthetic, synthetic_case),
        CaseKernel(real, real_case, synthetic, synthetic_case),
    )
    if shared:
        kernels[2].leave_out(_same_names(real_groups, synthetic_groups))
    rng = np.random.default_rng(seed)
    draws_real = _counts(rng, n_real, n_resamples)
    draws_synthetic = _counts(rng, n_synthetic, n_resamples)
    value = weighted_mmd2(*kernels, np.ones((1, n_real)), np.ones((1, n_synthetic)))
    draws = weighted_mmd2(*kernels, draws_real, draws_synthetic)
    low, high = percentile_ends(draws, confidence)
    method = f"case bootstrap, {n_resamples} resamples, {confidence:.0%}"
    return Interval(float(value[0]), low, high, n_real + n_synthetic, None, method)


class CaseKernel:
    """Kernel values summed over the slices of each pair of cases.

    Every resample by case is a weighted sum of these, so the kernel is computed once.

    Attributes:
        sums: Sum of k(x, y) over slices x of case i and y of case j, ``[a, b]``.
        pairs: Number of such pairs of slices, ``[a, b]``.
    """

    def __init__(
        self,
        first: Features,
        first_case: Int[np.ndarray, " m"],
        second: Float[np.ndarray, "k d"],
        second_case: Int[np.ndarray, " k"],
    ) -> None:
        first_sizes, second_sizes = np.bincount(first_case), np.bincount(second_case)
        self.pairs: Float[np.ndarray, "a b"] = np.outer(first_sizes, second_sizes).astype(float)
        self.sums: Float[np.ndarray, "a b"] = np.zeros_like(self.pairs)
        # Slices in the order of their cases, so that a sum over a case is a sum over a stretch.
        first_order = np.argsort(first_case, kind="stable")
        second_order = np.argsort(second_case, kind="stable")
        starts = np.concatenate([[0], np.cumsum(second_sizes)[:-1]])
        right = second[second_order].astype(np.float64).T / first.shape[1]
        for begin in range(0, len(first), _ROWS_AT_ONCE):
            rows = first_order[begin : begin + _ROWS_AT_ONCE]
            kernel = (first[rows].astype(np.float64) @ right + 1) ** 3
            by_column_case = np.add.reduceat(kernel, starts, axis=1)
            cases, row_starts = np.unique(first_case[rows], return_index=True)
            self.sums[cases] += np.add.reduceat(by_column_case, row_starts, axis=0)

    def leave_out(self, pairs: Bool[np.ndarray, "a b"]) -> None:
        """Count these pairs of cases no more."""
        self.sums[pairs] = 0
        self.pairs[pairs] = 0


def _same_names(real: Groups | None, synthetic: SyntheticGroups | None) -> Bool[np.ndarray, "a b"]:
    """In the order in which ``case_of_slice`` numbers the cases."""
    if real is None or synthetic is None:
        raise InputError("Groups are shared only where both sides have them. Give both.")
    same: Bool[np.ndarray, "a b"] = np.unique(real)[:, None] == np.unique(synthetic)
    return same


def weighted_mmd2(
    real: CaseKernel,
    synthetic: CaseKernel,
    cross: CaseKernel,
    real_weights: Float[np.ndarray, "b r"],
    synthetic_weights: Float[np.ndarray, "b s"],
) -> Float[np.ndarray, " b"]:
    """Unbiased MMD^2 for each row of case weights; pairs within a case are left out."""
    within_real = _mean_between(real, real_weights)
    within_synthetic = _mean_between(synthetic, synthetic_weights)
    crossed = (real_weights @ cross.sums * synthetic_weights).sum(axis=1)
    n_crossed = (real_weights @ cross.pairs * synthetic_weights).sum(axis=1)
    mmd2: Float[np.ndarray, " b"] = within_real + within_synthetic - 2 * crossed / n_crossed
    return mmd2


def _mean_between(kernel: CaseKernel, weights: Float[np.ndarray, "b a"]) -> Float[np.ndarray, " b"]:
    """Mean kernel value over slices of two different cases."""
    different = 1 - np.eye(len(kernel.sums))
    total: Float[np.ndarray, " b"] = (weights @ (kernel.sums * different) * weights).sum(axis=1)
    total /= (weights @ (kernel.pairs * different) * weights).sum(axis=1)
    return total


def _counts(rng: np.random.Generator, n_cases: int, n_resamples: int) -> Float[np.ndarray, "b a"]:
    """How often each case is drawn; a resample of one case alone has no pairs and is redrawn."""
    even = np.full(n_cases, 1 / n_cases)
    counts = rng.multinomial(n_cases, even, size=n_resamples)
    while (lone := (counts > 0).sum(axis=1) < 2).any():
        counts[lone] = rng.multinomial(n_cases, even, size=int(lone.sum()))
    return counts.astype(np.float64)
