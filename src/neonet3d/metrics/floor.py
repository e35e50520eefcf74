"""The floor: how far real images are from real images, with FID at the same n as the distance.

KID is unbiased, so it uses every case. FID is not: two halves of one cohort are far apart at
hospital n. So FID is only ever reported against a floor *at the same n per side*: k cases are the
most that two disjoint halves of the real cohort and random halves of the synthetic set can all
give, k = min(real, synthetic) // 2; for each of several random splits into A and B (k real cases
each) and C (k synthetic cases) the distance is FID(A, C) and the floor FID(A, B), with the same A.
Every case gives the same number of slices, so equal cases mean equal slices.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from neonet3d.errors import InputError
from neonet3d.metrics.cases import (
    Features,
    Groups,
    SyntheticFeatures,
    SyntheticGroups,
    case_of_slice,
    check_widths,
)
from neonet3d.metrics.frechet import frechet_distance
from neonet3d.metrics.kernel_distance import CaseKernel, weighted_mmd2

LEAST_TO_MATCH = 4  # on each side: two in each half


@dataclass(frozen=True)
class Spread:
    """A distance over several random splits, and how many cases each side had.

    ``low`` and ``high`` bound the middle 95 % of the splits. For halves of a cohort that is about a
    95 % interval of the distance on the whole cohort: the variance of a mean over a random half,
    drawn without replacement, is s^2/n, that of the mean of n new cases (half-sampling: Politis &
    Romano, Ann. Stat. 22 (1994) 2031). A bootstrap would not do for FID: repeated cases shrink the
    covariance and push every value upwards.
    """

    mean: float
    low: float
    high: float
    n_cases: int


@dataclass(frozen=True)
class MatchedFrechet:
    """FID of real to synthetic, and its real-to-real floor at the same n (``n_cases`` per side)."""

    distance: Spread
    floor: Spread


def real_floor(
    real: Features,
    metric: Literal["kid", "fid"],
    seed: int,
    *,
    groups: Groups | None = None,
    n_cases: int | None = None,
    n_splits: int = 40,
) -> Spread:
    """Distance between two random disjoint sets of real cases: the best a generator can look for.

    For KID the mean over splits is about 0 whatever the data; its extent is what informs.

    Args:
        real: Features of real slices, ``[m, d]``.
        metric: ``kid`` or ``fid``.
        seed: Seed of the splits.
        groups: Case of each slice, ``[m]``; a case is never split. None: every row is a case.
        n_cases: Cases on each side, 2 to half of them; None takes half.
        n_splits: Number of random splits.

    Raises:
        InputError: Too few cases; for FID, cases that differ in their number of slices.
    """
    case = case_of_slice(real, groups, "real")
    size = (int(case.max()) + 1) // 2 if n_cases is None else n_cases
    half_a, half_b = _split_cases(case, size, n_splits, seed)
    if metric == "kid":
        kernel = CaseKernel(real, case, real, case)
        return _spread(weighted_mmd2(kernel, kernel, kernel, half_a, half_b), size)
    _slices_per_case(case)
    values = [
        frechet_distance(real[_rows(a, case)], real[_rows(b, case)])
        for a, b in zip(half_a, half_b, strict=True)
    ]
    return _spread(np.array(values), size)


def matched_frechet(
    real: Features,
    synthetic: SyntheticFeatures,
    seed: int,
    *,
    real_groups: Groups | None = None,
    synthetic_groups: SyntheticGroups | None = None,
    n_splits: int = 40,
) -> MatchedFrechet:
    """FID and its floor, both at k = min(real, synthetic) // 2 cases per side (see the module).

    Args:
        real: Features of real slices, ``[m, d]``.
        synthetic: SyntheticFeatures of synthetic slices, ``[k, d]``.
        seed: Seed of the splits; ``floor`` equals ``real_floor(real, "fid", seed, n_cases=k)``.
        real_groups: Case of each real slice, ``[m]``.
        synthetic_groups: Case of each synthetic slice, ``[k]``.
        n_splits: Number of random splits.

    Raises:
        InputError: Under four real or four synthetic cases; cases differ in their number of slices.
    """
    check_widths(real, synthetic)
    real_case = case_of_slice(real, real_groups, "real")
    synthetic_case = case_of_slice(synthetic, synthetic_groups, "synthetic")
    _slices_per_case(real_case, synthetic_case)
    n_real, n_synthetic = int(real_case.max()) + 1, int(synthetic_case.max()) + 1
    if min(n_real, n_synthetic) < LEAST_TO_MATCH:
        raise InputError(
            f"There are {n_real} real and {n_synthetic} synthetic cases, but FID at matched n "
            f"needs {LEAST_TO_MATCH} of each. Add cases."
        )
    size = min(n_real, n_synthetic) // 2
    half_a, _ = _split_cases(real_case, size, n_splits, seed)
    rng = np.random.default_rng([seed, 1])  # apart from the splits, so that the floor stays put
    values = []
    for a in half_a:
        drawn = np.zeros(n_synthetic)
        drawn[rng.permutation(n_synthetic)[:size]] = 1
        part = synthetic[_rows(drawn, synthetic_case)]
        values.append(frechet_distance(real[_rows(a, real_case)], part))
    floor = real_floor(real, "fid", seed, groups=real_groups, n_cases=size, n_splits=n_splits)
    return MatchedFrechet(_spread(np.array(values), size), floor)


def _split_cases(
    case: Int[np.ndarray, " m"], size: int, n_splits: int, seed: int
) -> tuple[Float[np.ndarray, "b r"], Float[np.ndarray, "b r"]]:
    """Two disjoint random sets of ``size`` cases for each split, as rows of 0 and 1."""
    n_cases = int(case.max()) + 1
    if size < 2 or 2 * size > n_cases or n_splits < 1:
        raise InputError(
            f"Cannot draw {n_splits} split(s) with two disjoint sets of {size} from {n_cases} real "
            "cases. A floor needs at least 4 real cases, 2 on each side, and 1 split."
        )
    rng = np.random.default_rng(seed)
    ranks = rng.permuted(np.tile(np.arange(n_cases), (n_splits, 1)), axis=1)
    return (ranks < size).astype(float), ((ranks >= size) & (ranks < 2 * size)).astype(float)


def _rows(drawn: Float[np.ndarray, " r"], case: Int[np.ndarray, " m"]) -> Int[np.ndarray, " k"]:
    """Rows of the slices of the drawn cases."""
    return np.flatnonzero(drawn[case])


def _slices_per_case(*cases: Int[np.ndarray, " _"]) -> int:
    counts = np.unique(np.concatenate([np.bincount(case) for case in cases]))
    if counts.size > 1:
        raise InputError(
            f"Cases have from {counts[0]} to {counts[-1]} slices, but FID depends on how many "
            "there are. Take the same slices_per_volume for every case, real and synthetic."
        )
    return int(counts[0])


def _spread(values: Float[np.ndarray, " b"], n_cases: int) -> Spread:
    low, high = np.quantile(values, [0.025, 0.975])
    return Spread(float(values.mean()), float(low), float(high), n_cases)
