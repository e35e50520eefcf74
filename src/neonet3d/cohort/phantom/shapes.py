"""Solids as signed distances in mm: negative inside, positive outside.

Every function takes coordinates that broadcast against each other, so the same formula serves a
grid (three axes) and a list of points.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neonet3d.cohort.phantom.grid import FloatArray, Grid, Vector


def ellipsoid_distance(x: Any, y: Any, z: Any, centre_mm: Vector, semi_axes_mm: Vector) -> Any:
    """First-order signed distance to an axis-aligned ellipsoid, in mm.

    With q = |p / a| and g = |p / a²| the distance is q (q - 1) / g: exact at the surface to first
    order, too short far outside, which no caller depends on.

    Args:
        x: Coordinates in mm that broadcast with `y` and `z`.
        y: See `x`.
        z: See `x`.
        centre_mm: Centre in mm.
        semi_axes_mm: Semi-axes in mm; `inf` along an axis makes a cylinder.
    """
    (cx, cy, cz), (ax, ay, az) = centre_mm, semi_axes_mm
    ux, uy, uz = ((x - cx) / ax) ** 2, ((y - cy) / ay) ** 2, ((z - cz) / az) ** 2
    radius = np.sqrt(ux + uy + uz)
    gradient = np.sqrt(ux / ax**2 + uy / ay**2 + uz / az**2)
    # At the centre both vanish and the distance is minus a semi-axis; the tiny terms keep it so.
    tiny, smallest = np.float32(1e-6), min(semi_axes_mm)
    return (radius - 1) * (radius + tiny) / (gradient + tiny / smallest)


def smooth_minimum(a: Any, b: Any, blend_mm: float) -> Any:
    """Union of two solids with a fillet where they meet: quadratic smooth minimum.

    min(a, b) - h² / (4 k) with h = max(k - |a - b|, 0) and k = `blend_mm`.
    """
    h = np.maximum(blend_mm - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h * (0.25 / blend_mm)


def smooth_maximum(a: Any, b: Any, blend_mm: float) -> Any:
    """Intersection of two solids with a rounded edge; see `smooth_minimum`."""
    return -smooth_minimum(-a, -b, blend_mm)


def paint_balls(
    canvas: FloatArray,
    grid: Grid,
    centres_mm: Any,
    radii_mm: Any,
    amplitudes: Any,
    *,
    fade_mm: float,
    level: float,
) -> None:
    """Raise `canvas` to the strongest of many soft balls, in place.

    A ball contributes amplitude x clip(level - d / fade, 0, 1) at the distance d from its surface.
    Only the samples within a ball's reach are visited, which makes a vessel tree cost milliseconds.

    Args:
        canvas: `(nx, ny, nz)` float32, contiguous, on `grid`.
        grid: Where the samples of `canvas` are.
        centres_mm: `(n, 3)` in mm.
        radii_mm: `(n,)` in mm.
        amplitudes: `(n,)`, unit of `canvas`.
        fade_mm: Width over which the contribution falls from 1 to 0, in mm.
        level: Contribution at the surface; .5 antialiases an edge over `fade_mm`.
    """
    if canvas.shape != grid.shape or not canvas.flags.c_contiguous:
        raise ValueError(
            f"The canvas {canvas.shape} must be contiguous and have the grid's shape {grid.shape}."
        )
    flat = canvas.reshape(-1)
    first, spacing = np.asarray(grid.first_mm), np.asarray(grid.spacing_mm)
    size = np.asarray(grid.shape)
    centres = np.asarray(centres_mm, dtype=np.float64).reshape(-1, 3)
    radii, amplitudes = np.asarray(radii_mm, np.float32), np.asarray(amplitudes, np.float32)
    nearest = np.rint((centres - first) / spacing).astype(np.int64)
    reach = radii + np.float32(level * fade_mm)
    # Balls of like reach share one stencil: a few vectorised passes instead of a loop over balls.
    group = np.ceil(reach).astype(int)
    for extent in np.unique(group):
        chosen = np.flatnonzero((group == extent) & (amplitudes > 0))
        half = np.ceil(extent / spacing).astype(int)
        axes, distances, valid = [], [], []
        for axis in range(3):
            index = nearest[chosen, axis, None] + np.arange(-half[axis], half[axis] + 1)
            offset = first[axis] + spacing[axis] * index - centres[chosen, axis, None]
            axes.append(index)
            distances.append((offset**2).astype(np.float32))
            valid.append((index >= 0) & (index < size[axis]))
        distance = (distances[0][:, :, None, None] + distances[1][:, None, :, None]) + distances[2][
            :, None, None, :
        ]
        np.sqrt(distance, out=distance)
        distance -= radii[chosen, None, None, None]
        value = np.clip(level - distance / np.float32(fade_mm), 0, 1).astype(np.float32)
        value *= amplitudes[chosen, None, None, None]
        keep = (value > 0) & (
            valid[0][:, :, None, None] & valid[1][:, None, :, None] & valid[2][:, None, None, :]
        )
        where = (axes[0][:, :, None, None] * size[1] + axes[1][:, None, :, None]) * size[2] + axes[
            2
        ][:, None, None, :]
        np.maximum.at(flat, where[keep], value[keep])
