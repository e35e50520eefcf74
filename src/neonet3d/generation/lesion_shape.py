"""The shape of a tumour as a map of signed distances to its surface, of a mask or drawn anew."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from neonet3d.types import Shape, Triple

AXIS_RATIO = 1.4  # largest, of a drawn ellipsoid's axes to their mean
BUMPS = 0.15  # standard deviation of a drawn surface, as a share of its radius


def tumour_distance_mm(
    tumour: Bool[np.ndarray, "x y z"], spacing_mm: Triple
) -> Float[np.ndarray, "x y z"]:
    """Signed distance to the surface in mm, positive inside; smoothed by half a voxel."""
    inside = ndimage.distance_transform_edt(tumour, sampling=spacing_mm)
    outside = ndimage.distance_transform_edt(~tumour, sampling=spacing_mm)
    # The surface lies between two voxel centres, and both distances are to the farther one.
    half = min(spacing_mm) / 2
    signed = np.where(tumour, inside - half, half - outside)
    # The smoothing orders voxels of equal distance by how enclosed they are, not by their index.
    return np.asarray(ndimage.gaussian_filter(signed, 0.5, mode="nearest"))


def draw_shape_mm(
    shape: Shape, spacing_mm: Triple, volume_mm3: float, rng: np.random.Generator
) -> Float[np.ndarray, "x y z"]:
    """Distance map of an ellipsoid with smooth bumps in the middle of a grid.

    Args:
        volume_mm3: decides over how many mm the bumps vary.
    """
    spacing = np.array(spacing_mm)[:, None, None, None]
    centre = (np.array(shape) - 1)[:, None, None, None] / 2
    position_mm = (np.indices(shape) - centre) * spacing
    radius_mm = (3 * volume_mm3 / (4 * np.pi)) ** (1 / 3)
    axes = np.exp(rng.uniform(-np.log(AXIS_RATIO), np.log(AXIS_RATIO), 3))
    axes = (axes / np.prod(axes) ** (1 / 3))[:, None, None, None]
    bumps = ndimage.gaussian_filter(
        rng.standard_normal(shape), radius_mm / 2 / np.array(spacing_mm), mode="wrap"
    )
    depth: Float[np.ndarray, "x y z"] = radius_mm - np.linalg.norm(position_mm / axes, axis=0)
    return depth + BUMPS * radius_mm * bumps / bumps.std()
