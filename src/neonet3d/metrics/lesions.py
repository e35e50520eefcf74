"""Lesion by lesion: which were found, and which findings are none."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from neonet3d.errors import InputError

LEAST_OVERLAP = 0.1
"""Intersection over union at which a finding is the lesion; usual for 3D detection, where small
lesions are hit off centre (nnDetection, Baumgartner et al., MICCAI 2021)."""
TOUCHING = ndimage.generate_binary_structure(3, 3)  # 26 neighbours


@dataclass(frozen=True)
class LesionCount:
    """Detection in one scan.

    Attributes:
        n_reference: Lesions that are there.
        n_found: Of these, how many a finding overlaps enough.
        n_false: Findings that overlap no lesion enough.
    """

    n_reference: int
    n_found: int
    n_false: int


def count_lesions(
    prediction: Bool[np.ndarray, "x y z"], reference: Bool[np.ndarray, "x y z"]
) -> LesionCount:
    """Match connected components (26 neighbours) by intersection over union.

    Each finding and each lesion is matched at most once, best overlap first. A scan without lesions
    has no sensitivity, only false findings; sum the counts over scans before dividing.

    Args:
        prediction: Mask of the findings.
        reference: Mask of the lesions, on the same grid.

    Raises:
        InputError: The shapes differ.
    """
    if prediction.shape != reference.shape:
        raise InputError(
            f"The prediction has the shape {prediction.shape} but the reference {reference.shape}. "
            "Bring both to one grid before comparing them."
        )
    found, n_found = ndimage.label(prediction, TOUCHING)
    real, n_real = ndimage.label(reference, TOUCHING)
    shared = np.zeros((n_found + 1, n_real + 1))
    np.add.at(shared, (found.ravel(), real.ravel()), 1)
    union = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True) - shared
    overlap = (shared / np.maximum(union, 1))[1:, 1:]
    matched = 0
    while overlap.size and overlap.max() >= LEAST_OVERLAP:
        finding, lesion = np.unravel_index(int(overlap.argmax()), overlap.shape)
        overlap[finding, :] = 0
        overlap[:, lesion] = 0
        matched += 1
    return LesionCount(n_real, matched, n_found - matched)
