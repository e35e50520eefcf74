"""Where TLCR's window goes: the liver in a mask, and the grid around a box."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from neonet3d.cohort.geometry import Grid, Window
from neonet3d.cohort.volume import Volume
from neonet3d.metrics.box import bounding_box
from neonet3d.metrics.lesions import TOUCHING
from neonet3d.segmentation.lesions import LESION_CLASS
from neonet3d.types import LabelSchema

LEAST_PIECE = 0.05  # of the largest piece of a liver; smaller ones are specks of a predicted mask


def liver_centre(label_map: Volume, schema: LabelSchema) -> Float[np.ndarray, " 3"] | None:
    """Centre of gravity of the liver, in voxels; None where there is none."""
    if "liver" not in schema:
        return None
    liver = label_map.data == schema.value("liver")
    box = bounding_box(liver)
    if box is None:
        return None
    in_plane = liver[box].sum(axis=2)
    profiles = (in_plane.sum(1), in_plane.sum(0), liver[box].sum(axis=(0, 1)))
    return np.array(
        [
            side.start + np.average(np.arange(len(profile)), weights=profile)
            for side, profile in zip(box, profiles, strict=True)
        ]
    )


def window_around(
    low_mm: Float[np.ndarray, " 3"],
    high_mm: Float[np.ndarray, " 3"],
    source: Volume,
    grid: Grid,
) -> Window:
    """The grid around a box that it can hold, moved inside the scan, or around it where larger.

    In the middle but for less than a voxel, where it may begin with a voxel of the scan: half a
    voxel off, a grid of the scan's own spacing would blur the image and thin the masks.
    """
    spacing_mm, extent_mm = np.array(source.spacing_mm), grid.extent_mm
    first_mm = -spacing_mm / 2
    last_mm = first_mm + np.array(source.shape) * spacing_mm - extent_mm
    voxels = np.round(((low_mm + high_mm - extent_mm) / 2 - first_mm) / spacing_mm)
    start_mm = np.clip(first_mm + voxels * spacing_mm, high_mm - extent_mm, low_mm)
    start_mm = np.clip(start_mm, np.minimum(first_mm, last_mm), np.maximum(first_mm, last_mm))
    x, y, z = (start_mm + np.array(grid.spacing_mm) / 2).tolist()
    return Window((x, y, z), grid)


def liver_box(
    label_map: Volume, schema: LabelSchema
) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]] | None:
    """First and last voxel of the liver with its tumours, without specks; None where it is not.

    Pieces (26 neighbours) of less than ``LEAST_PIECE`` of the largest are specks.
    """
    if "liver" not in schema:
        return None
    liver = label_map.data == schema.value("liver")
    if not liver.any():
        return None
    if LESION_CLASS in schema:
        liver |= label_map.data == schema.value(LESION_CLASS)
    pieces, n = ndimage.label(liver, TOUCHING)
    voxels = np.bincount(pieces[liver], minlength=n + 1)
    sides = [
        piece
        for piece, count in zip(ndimage.find_objects(pieces), voxels[1:], strict=True)
        if count >= LEAST_PIECE * voxels.max()
    ]
    first = np.min([[side.start for side in piece] for piece in sides], axis=0)
    last = np.max([[side.stop - 1 for side in piece] for piece in sides], axis=0)
    return first.astype(np.float64), last.astype(np.float64)
