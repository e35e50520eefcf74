"""Where windows lie: as few as cover the foreground of a scan, at a given overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool

from neonet3d.cohort.geometry import Grid, Window
from neonet3d.cohort.volume import Volume
from neonet3d.types import Shape

OVERLAP = 0.25  # of neighbouring windows, as MONAI has it

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Foreground:
    """What of a scan holds foreground, on a coarse grid.

    Attributes:
        likely: (x, y, z), at least one voxel; windows cover it whatever that takes.
        possible: (x, y, z), holds ``likely``; it and the margin around it are covered as far as
            the windows over ``likely`` reach.
        window: where the coarse grid lies on the scan.
        margin_mm: around ``possible``.
        half_empty_mm: by how much the foreground ends, on average, before the outermost voxels of
            ``likely`` do.
    """

    likely: Bool[np.ndarray, "x y z"]
    possible: Bool[np.ndarray, "x y z"]
    window: Window
    margin_mm: float
    half_empty_mm: float

    def meets(self, window: Window) -> bool:
        """Whether a window holds a part of what is possible, with its margin."""
        place = []
        for axis in range(3):
            spacing, first = window.grid.spacing_mm[axis], window.first_mm[axis]
            low = first - spacing / 2 - self.margin_mm
            high = first + (window.grid.shape[axis] - 0.5) * spacing + self.margin_mm
            coarse, origin = self.window.grid.spacing_mm[axis], self.window.first_mm[axis]
            start = max(0, math.floor((low - origin) / coarse + 0.5))
            place.append(slice(start, max(start, math.ceil((high - origin) / coarse + 0.5))))
        return bool(self.possible[tuple(place)].any())


@dataclass(frozen=True)
class Layout:
    """The network's grid on a scan, the region of it that is asked for, and the windows over it.

    Attributes:
        window: where the network's grid lies on the scan; never smaller than one patch.
        patch: voxels of a window.
        region: the voxels of the network's grid that are predicted; all else is background.
        starts: first voxel of each window, sorted.
    """

    window: Window
    patch: Shape
    region: Box
    starts: tuple[Shape, ...]


def lay_windows(scan: Volume, grid: Grid, foreground: Foreground | None) -> Layout:
    """As few windows as cover the foreground, or the whole scan where none is given.

    The network's grid has the scan's extent and middle, and is padded by whole voxels where the
    scan is smaller than a window, so that a scan of the network's spacing is read voxel by voxel.

    Args:
        grid: shape and spacing of a window.
    """
    spacing = np.array(grid.spacing_mm)
    x, y, z = np.ceil(np.round(scan.extent_mm / spacing, 3)).astype(int).tolist()
    inner = Window.centred(scan, Grid((x, y, z), grid.spacing_mm))
    padding = [max(0, p - n) // 2 for p, n in zip(grid.shape, (x, y, z), strict=True)]
    shape = tuple(max(p, n) for p, n in zip(grid.shape, (x, y, z), strict=True))
    window = sub_window(inner, tuple(slice(-a, n - a) for a, n in zip(padding, shape, strict=True)))
    region: list[slice] = []
    starts: list[list[int]] = []
    for axis in range(3):
        n, patch = shape[axis], grid.shape[axis]
        inside = (padding[axis], padding[axis] + (x, y, z)[axis])
        if foreground is None:
            wanted, places = inside, _over_scan(n, patch)
        else:
            needed, wanted = (
                _voxels(window, axis, _extent_mm(mask, foreground.window, axis, margin_mm), inside)
                for mask, margin_mm in (
                    (foreground.likely, -foreground.half_empty_mm),
                    (foreground.possible, foreground.margin_mm),
                )
            )
            places = _over_part(needed, wanted, n, patch)
        starts.append(places)
        region.append(slice(max(wanted[0], places[0]), min(wanted[1], places[-1] + patch)))
    chosen = tuple(
        start
        for start in product(starts[0], starts[1], starts[2])
        if foreground is None or foreground.meets(_at(window, start, grid.shape))
    )
    return Layout(window, grid.shape, (region[0], region[1], region[2]), chosen)


def sub_window(window: Window, place: Sequence[slice]) -> Window:
    """A box of a window's grid as a window of its own; it may reach beyond the grid."""
    x, y, z = (
        first + part.start * spacing
        for first, part, spacing in zip(window.first_mm, place, window.grid.spacing_mm, strict=True)
    )
    nx, ny, nz = (part.stop - part.start for part in place)
    return Window((x, y, z), Grid((nx, ny, nz), window.grid.spacing_mm))


def _over_scan(n: int, patch: int) -> list[int]:
    """Starts along one axis over all of it, the last one shifted, as MONAI has them."""
    count = _fewest(n, patch)
    return [min(i * _step(patch), n - patch) for i in range(count)]


def _over_part(needed: tuple[int, int], wanted: tuple[int, int], n: int, patch: int) -> list[int]:
    """Starts along one axis: as few as cover what is needed, as far apart as what is wanted asks.

    Windows that could lie farther apart lie closer instead: voxels between them are seen twice.
    """
    count = _fewest(needed[1] - needed[0], patch)
    farthest = patch + (count - 1) * _step(patch)
    reach = min(farthest, max(patch, wanted[1] - wanted[0]))
    first = min(max((wanted[0] + wanted[1] - reach) // 2, needed[1] - reach), needed[0])
    first = min(max(first, 0), n - reach)
    return [first + i * (reach - patch) // max(1, count - 1) for i in range(count)]


def _fewest(length: int, patch: int) -> int:
    return 1 + max(0, math.ceil((length - patch) / _step(patch)))


def _step(patch: int) -> int:
    return max(1, int(patch * (1 - OVERLAP)))


def _extent_mm(
    mask: Bool[np.ndarray, "x y z"], window: Window, axis: int, margin_mm: float
) -> tuple[float, float]:
    """From edge to edge of a mask's voxels, with a margin, from the scan's first voxel centre."""
    found = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    spacing, first = window.grid.spacing_mm[axis], window.first_mm[axis]
    low, high = first + (found[0] - 0.5) * spacing, first + (found[-1] + 0.5) * spacing
    return low - margin_mm, high + margin_mm


def _voxels(
    window: Window, axis: int, extent_mm: tuple[float, float], limits: tuple[int, int]
) -> tuple[int, int]:
    """First and last + 1 voxel of a grid that an extent touches, at least one of the limits."""
    spacing, first = window.grid.spacing_mm[axis], window.first_mm[axis]
    low = math.floor((extent_mm[0] - first) / spacing + 0.5 + 1e-6)
    high = math.ceil((extent_mm[1] - first) / spacing + 0.5 - 1e-6)
    low = min(max(low, limits[0]), limits[1] - 1)
    return low, max(low + 1, min(high, limits[1]))


def _at(window: Window, start: Sequence[int], patch: Shape) -> Window:
    return sub_window(window, [slice(a, a + n) for a, n in zip(start, patch, strict=True)])
