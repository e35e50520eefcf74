"""A mask that was drawn on one grid, on the grid of a scan: by world coordinates, never by index.

The two grids may differ in everything: origin, spacing, orientation, an oblique angle. For grids
whose axes are parallel, ``geometry`` is faster and goes both ways.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage

from neonet3d.cohort.geometry import ALIKE, Member, on_ridge, vote
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.types import Affine, ImageArray, LabelMap, Shape

Box = tuple[slice, slice, slice]


def draw_on_grid(mask: Volume, target: Volume, *, n_classes: int, name: str) -> LabelMap:
    """A label map on another volume's grid: the largest of the per-class linear interpolations.

    Where the target is coarser, the interpolation is averaged over points spread over the target's
    voxel, so that it is the share of the voxel that a class fills; what is thinner than a voxel is
    kept as in ``geometry.resample_label_map``. What the mask does not cover is background.

    Args:
        mask: label map with values 0 to ``n_classes`` - 1.
        target: the volume on whose grid the result lies; its values are not looked at.
        name: the case, for error messages.

    Returns:
        uint8 array of the target's shape.

    Raises:
        InputError: the mask has classes, and all of them lie outside the target.
    """
    to_mask = np.linalg.inv(mask.affine) @ target.affine
    finer = _is_finer(target, mask)

    def member(value: int) -> Member:
        inside = mask.data == value
        membership = _membership(inside, to_mask, target.shape)
        ridge = on_ridge(membership)
        if finer:  # blur lies around the mask's own voxels, and is no ridge
            ridge &= _membership(inside, to_mask, target.shape, order=0) > 0
        return membership, ridge

    drawn = vote(target.shape, (member(value) for value in range(1, n_classes)))
    if mask.data.any() and not drawn.any():
        raise InputError(
            f"{name}: the mask lies outside the scan (centres {_centres_apart_mm(mask, target):.0f}"
            " mm apart), so the two do not belong together or one has a wrong affine. "
            "Give the mask of this scan, with the scan's place in the patient."
        )
    return drawn


def _is_finer(target: Volume, mask: Volume) -> bool:
    """Whether an axis of the target has smaller voxels than the axis of the mask nearest to it."""
    mine, its = (v.affine[:3, :3] / np.array(v.spacing_mm) for v in (target, mask))
    nearest = np.abs(its.T @ mine).argmax(0)
    limit_mm = (1 - ALIKE) * np.array(mask.spacing_mm)[nearest]
    return bool((np.array(target.spacing_mm) < limit_mm).any())


def _membership(inside: np.ndarray, to_mask: Affine, shape: Shape, *, order: int = 1) -> ImageArray:
    """Share of each target voxel that a binary mask fills, float32 of ``shape``.

    Args:
        order: 1 interpolates between the mask's voxels, 0 takes the nearest.
    """
    membership = np.zeros(shape, dtype=np.float32)
    box = _reach(inside, to_mask, shape)
    if box is None:
        return membership
    start = np.array([part.start for part in box])
    size = tuple(part.stop - part.start for part in box)
    steps = np.maximum(np.ceil(np.linalg.norm(to_mask[:3, :3], axis=0) - 1e-3), 1).astype(int)
    points = [(np.arange(n) + 0.5) / n - 0.5 for n in steps]
    values = inside.astype(np.float32)
    for offset in product(*points):
        first = to_mask[:3, :3] @ (start + np.array(offset)) + to_mask[:3, 3]
        # Beyond the border lies background, half a voxel away, and not a copy of the border.
        membership[box] += ndimage.affine_transform(
            values,
            to_mask[:3, :3],
            first,
            output_shape=size,
            order=order,
            mode="grid-constant",
        )
    return membership / np.float32(np.prod(steps))


def _reach(inside: np.ndarray, to_mask: Affine, shape: Shape) -> Box | None:
    """The part of the target that a binary mask may touch; None where there is none."""
    spans = [
        np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
        for axis in range(3)
    ]
    if not len(spans[0]):
        return None
    corners = np.array(list(product(*[(span[0] - 1, span[-1] + 1) for span in spans])))
    from_mask = np.linalg.inv(to_mask)
    reached = corners @ from_mask[:3, :3].T + from_mask[:3, 3]
    low = np.clip(np.floor(reached.min(0)) - 1, 0, shape).astype(int)
    high = np.clip(np.ceil(reached.max(0)) + 2, 0, shape).astype(int)
    if np.any(high <= low):
        return None
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))


def _centres_apart_mm(a: Volume, b: Volume) -> float:
    centres = [v.affine[:3, :3] @ ((np.array(v.shape) - 1) / 2) + v.affine[:3, 3] for v in (a, b)]
    return float(np.linalg.norm(centres[0] - centres[1]))
