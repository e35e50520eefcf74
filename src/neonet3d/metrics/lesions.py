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
        dice: Dice of each lesion that was found with the finding it was matched to.
    """

    n_reference: int
    n_found: int
    n_false: int
    dice: tuple[float, ...]


def count_lesions(
    prediction: Bool[np.ndarray, "x y z"], reference: Bool[np.ndarray, "x y z"]
) -> LesionCount:
    """Match connected components (26 neighbours) by intersection over union.

    Each finding and each lesion is matched at most once, best overlap first. So a finding over two
    lesions has found one of them and missed the other; a lesion found in two parts is found once,
    and its second part is a false finding. Every component counts, however small.

    A scan without lesions has no sensitivity, only false findings; sum the counts over scans before
    dividing. Empty masks: no findings, no lesions, nothing to match.

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
    inside = (found > 0) | (real > 0)
    pairs = found[inside].astype(np.int64) * (n_real + 1) + real[inside]
    shared = np.bincount(pairs, minlength=(n_found + 1) * (n_real + 1))
    shared = shared.reshape(n_found + 1, n_real + 1)
    sizes = shared.sum(1, keepdims=True) + shared.sum(0, keepdims=True)
    shared, sizes = shared[1:, 1:], sizes[1:, 1:]
    overlap = shared / (sizes - shared)
    dice = []
    while overlap.size and overlap.max() >= LEAST_OVERLAP:
        finding, lesion = np.unravel_index(int(overlap.argmax()), overlap.shape)
        dice.append(float(2 * shared[finding, lesion] / sizes[finding, lesion]))
        overlap[finding, :] = 0
        overlap[:, lesion] = 0
    return LesionCount(n_real, len(dice), n_found - len(dice), tuple(dice))
