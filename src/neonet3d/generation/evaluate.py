"""How good synthetic patches are: fidelity per plane, mask adherence, copying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Float

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import Patches
from neonet3d.engine.progress import progress
from neonet3d.metrics.features import EXTRACTOR_NAME, Plane, SliceFeatures, slice_features
from neonet3d.metrics.fidelity import FidelityScore, fidelity_score
from neonet3d.metrics.interval import Interval, bootstrap_mean
from neonet3d.metrics.overlap import dice
from neonet3d.segmentation.predict import Segmenter

SLICES_PER_CASE = 4
SLICE_SIZE = 96


@dataclass(frozen=True)
class PlaneFeatures:
    """Features of slices of one plane, and which case each slice belongs to."""

    features: Float[np.ndarray, "m d"]
    groups: np.ndarray


def plane_features(patches: Patches, extractor: SliceFeatures) -> dict[Plane, PlaneFeatures]:
    """ImageNet features of evenly spaced slices in each plane."""
    volumes = ((patches.images + 1) / 2).clamp(0, 1)
    return {
        plane: PlaneFeatures(
            *slice_features(
                volumes,
                plane,
                SLICES_PER_CASE,
                spacing_mm=patches.spacing_mm,
                size=SLICE_SIZE,
                extractor=extractor,
            )
        )
        for plane in get_args(Plane)
    }


def compare_patches(real: Patches, synthetic: Patches, *, seed: int) -> tuple[FidelityScore, ...]:
    """KID and FID per plane, with their floors."""
    extractor = SliceFeatures()
    with progress("features of slices", 2) as advance:
        of_real = plane_features(real, extractor)
        advance()
        of_synthetic = plane_features(synthetic, extractor)
        advance()
    return tuple(
        fidelity_score(
            of_real[plane].features,
            of_synthetic[plane].features,
            real_groups=of_real[plane].groups,
            synthetic_groups=of_synthetic[plane].groups,
            extractor=EXTRACTOR_NAME,
            plane=plane,
            seed=seed,
        )
        for plane in get_args(Plane)
    )


def mask_adherence(segmenter: Segmenter, pairs: Cohort) -> list[dict[str, float]]:
    """Dice of NeoSeg's reading of each image against its mask, per class (nan: both empty)."""
    labels = {name: value for name, value in pairs.schema.as_mapping().items() if value > 0}
    scores = []
    with progress("mask adherence", len(pairs)) as advance:
        for case in pairs:
            image, mask = case.read_with_mask()
            scores.append(dice(segmenter.segment(image).label_map.data, mask.data, labels))
            advance()
    return scores


def summarise(scores: list[dict[str, float]], *, seed: int) -> dict[str, Interval]:
    """Mean per class with a bootstrap interval over cases; a class never seen is left out."""
    summary = {}
    for name in scores[0]:
        values = np.array([score[name] for score in scores])
        if np.isfinite(values).any():
            summary[name] = bootstrap_mean(values, seed)
    return summary
