"""How near synthetic images are to real ones, always beside how near real ones are to real ones.

The measures live in ``kernel_distance`` (KID), ``frechet`` (FID) and ``floor`` (real against real,
and FID at matched n); here they become one row of the report, and are offered together.
"""

from dataclasses import dataclass

import numpy as np

from neonet3d.metrics.cases import Features, Groups, SyntheticFeatures, SyntheticGroups
from neonet3d.metrics.floor import MatchedFrechet, Spread, matched_frechet, real_floor
from neonet3d.metrics.frechet import frechet_distance
from neonet3d.metrics.kernel_distance import kid, kid_interval

__all__ = [
    "FidelityScore",
    "MatchedFrechet",
    "Spread",
    "fidelity_score",
    "frechet_distance",
    "kid",
    "kid_interval",
    "matched_frechet",
    "real_floor",
]


@dataclass(frozen=True)
class FidelityScore:
    """What the report says of one extractor in one plane.

    Attributes:
        kid: Unbiased KID over all pairs of patients.
        kid_low: Lower end of its 95 % patient-bootstrap interval.
        kid_high: Upper end.
        kid_floor: 97.5 % quantile of KID between random halves of the real cases (their mean is 0
            by construction), brought to the numbers of patients that ``kid`` is of: below it,
            synthetic cannot be told from real.
        fid: Mean FID over the matched splits.
        fid_low: Lower end of the middle 95 % of the splits; see ``floor.Spread``.
        fid_high: Upper end.
        fid_floor: Mean real-to-real FID over the same splits, at the same n.
        fid_floor_low: Lower end of the middle 95 % of the splits.
        fid_floor_high: Upper end.
        n_real: Real cases.
        n_synthetic: Synthetic cases.
        n_matched: Cases on each side of ``fid`` and ``fid_floor``.
        slices_per_case: Slices that each case gave.
        extractor: Name of the feature extractor.
        plane: Plane of the slices.
    """

    kid: float
    kid_low: float
    kid_high: float
    kid_floor: float
    fid: float
    fid_low: float
    fid_high: float
    fid_floor: float
    fid_floor_low: float
    fid_floor_high: float
    n_real: int
    n_synthetic: int
    n_matched: int
    slices_per_case: int
    extractor: str
    plane: str


def fidelity_score(
    real: Features,
    synthetic: SyntheticFeatures,
    *,
    real_groups: Groups,
    synthetic_groups: SyntheticGroups,
    real_patients: Groups,
    synthetic_patients: SyntheticGroups,
    extractor: str,
    plane: str,
    seed: int,
) -> FidelityScore:
    """KID with interval and floor, FID with its matched floor, for one extractor and plane.

    Args:
        real: Features of real slices, ``[m, d]``.
        synthetic: SyntheticFeatures of synthetic slices, ``[k, d]``.
        real_groups: Case of each real slice, ``[m]``.
        synthetic_groups: Case of each synthetic slice, ``[k]``.
        real_patients: Patient of each real slice, ``[m]``; KID counts patients.
        synthetic_patients: Patient on whose mask each synthetic slice was drawn, ``[k]``; by the
            same name as on the real side where that is the same patient.
        extractor: Name of the extractor, for the caption.
        plane: Plane of the slices, for the caption.
        seed: Seed of all resampling.

    Raises:
        InputError: Under four real or synthetic cases; cases differ in their slices.
    """
    matched = matched_frechet(
        real, synthetic, seed, real_groups=real_groups, synthetic_groups=synthetic_groups
    )
    interval = kid_interval(
        real,
        synthetic,
        seed,
        real_groups=real_patients,
        synthetic_groups=synthetic_patients,
        shared=True,
    )
    n_real, n_synthetic = np.unique(real_groups).size, np.unique(synthetic_groups).size
    halves = real_floor(real, "kid", seed, groups=real_patients, n_splits=100)
    patients = np.unique(real_patients).size / np.unique(synthetic_patients).size
    return FidelityScore(
        kid=interval.value,
        kid_low=interval.low,
        kid_high=interval.high,
        # Between sets of n and m cases KID scatters as 1 / n + 1 / m, between halves of n as 4 / n.
        kid_floor=halves.high * (1 + patients) / 4,
        fid=matched.distance.mean,
        fid_low=matched.distance.low,
        fid_high=matched.distance.high,
        fid_floor=matched.floor.mean,
        fid_floor_low=matched.floor.low,
        fid_floor_high=matched.floor.high,
        n_real=n_real,
        n_synthetic=n_synthetic,
        n_matched=matched.distance.n_cases,
        slices_per_case=len(real) // n_real,
        extractor=extractor,
        plane=plane,
    )
