"""Overlap of two vessel masks along their centrelines."""

import numpy as np
from jaxtyping import Bool

from neonet3d.errors import InputError
from neonet3d.metrics.skeleton import skeletonise
from neonet3d.types import Triple


def cl_dice(
    prediction: Bool[np.ndarray, "x y z"],
    reference: Bool[np.ndarray, "x y z"],
    spacing_mm: Triple,
) -> float:
    """clDice: harmonic mean of the topology precision and sensitivity of two masks.

    Precision is the share of the prediction's centreline that lies in the reference, sensitivity
    the share of the reference's centreline that lies in the prediction. A gap in a vein costs a
    length and not a volume, and a vein drawn too thick costs nothing.

    Voxels: the centreline is thinned by depth in mm, but its voxels are counted, as in the paper;
    where slices are thick, a millimetre along z weighs less than one in the plane.

    Empty masks: **nan** where neither holds anything, **0** where only one does.

    Source: Shit et al., CVPR 2021, section 2 (arXiv 2003.07311).

    Args:
        spacing_mm: Voxel size along x, y, z.

    Raises:
        InputError: The shapes differ.
    """
    if prediction.shape != reference.shape:
        raise InputError(
            f"The prediction has the shape {prediction.shape} but the reference {reference.shape}. "
            "Bring both to one grid before comparing them."
        )
    if not prediction.any() and not reference.any():
        return float("nan")
    if not prediction.any() or not reference.any():
        return 0.0
    precision = float(reference[skeletonise(prediction, spacing_mm)].mean())
    sensitivity = float(prediction[skeletonise(reference, spacing_mm)].mean())
    total = precision + sensitivity
    return 2 * precision * sensitivity / total if total else 0.0
