"""Axis-aligned resampling as three matrix products.

A window of the patient, given in mm along the axes of a volume, is read onto another grid by one
small matrix per axis: linear interpolation, widened to a triangle of the new voxel's size where the
grid gets coarser (anti-aliasing). The transpose direction is the same function with the roles of
the grids exchanged, which is how a mask drawn in a crop returns to the scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from neonet3d.cohort.volume import Volume
from neonet3d.types import Affine, ImageArray, LabelMap, Shape, Triple

# A tube one source voxel wide has at least 0.14 of a voxel of twice its size; the rest is blur.
RIDGE_MEMBERSHIP = 0.1
CARRIED = 0.499  # half a ridge, but for rounding
ALIKE = 1e-3  # relative difference of spacings that headers and resampling leave

Member = tuple[ImageArray, Bool[np.ndarray, "x y z"]]  # membership and ridges of a class


@dataclass(frozen=True)
class Grid:
    """A regular grid: number of voxels and their size in mm."""

    shape: Shape
    spacing_mm: Triple

    @property
    def extent_mm(self) -> np.ndarray:
        return np.array(self.shape) * np.array(self.spacing_mm)


@dataclass(frozen=True)
class Window:
    """Where a target grid lies on a source volume, axis by axis.

    Attributes:
        first_mm: position of the target's first voxel centre, in mm along the source's axes from
            the source's first voxel centre.
        grid: the target grid.
    """

    first_mm: Triple
    grid: Grid

    @classmethod
    def centred(cls, source: Volume, grid: Grid) -> Window:
        """The grid on the volume's middle.

        Along an axis of equal spacings it begins with a voxel of the volume, so that it may lie
        half a voxel off the middle: reading between voxels would blur the image and thin veins.
        """
        spacing_mm, wanted_mm = np.array(source.spacing_mm), np.array(grid.spacing_mm)
        middle = (np.array(source.shape) - 1) / 2 * spacing_mm
        first = middle - (np.array(grid.shape) - 1) / 2 * wanted_mm
        # It is a multiple of half a voxel, but for what the spacings differ.
        whole = np.floor(first / spacing_mm + 0.25) * spacing_mm
        x, y, z = np.where(np.isclose(spacing_mm, wanted_mm, rtol=ALIKE), whole, first).tolist()
        return cls((x, y, z), grid)

    def affine(self, source: Volume) -> Affine:
        """Affine of the target grid in world coordinates (mm, RAS+)."""
        directions = source.affine[:3, :3] / np.array(source.spacing_mm)
        affine = np.eye(4)
        affine[:3, :3] = directions * np.array(self.grid.spacing_mm)
        affine[:3, 3] = source.affine[:3, 3] + directions @ np.array(self.first_mm)
        return affine


def interpolation_matrix(
    n_in: int,
    n_out: int,
    *,
    spacing_in_mm: float,
    spacing_out_mm: float,
    first_mm: float,
    partial_volume: bool = False,
) -> Float[np.ndarray, "out in"]:
    """Weights of linear interpolation along one axis, anti-aliased where the grid gets coarser.

    Row i is a triangle of half-width max(spacing_in, spacing_out) around the position of output
    voxel i, normalised. With ``partial_volume`` it is what each input voxel fills of the output
    voxel, which is sharper where the grid gets coarser and the same where it does not. Positions
    more than half an input voxel outside the volume have weight 0 (padding), so that what lies
    outside is 0 and is not smeared from the border.
    """
    position = first_mm + np.arange(n_out) * spacing_out_mm
    centres = np.arange(n_in) * spacing_in_mm
    half_width = max(spacing_in_mm, spacing_out_mm)
    distance = np.abs(position[:, None] - centres[None])
    if partial_volume:
        weights = np.clip((half_width + spacing_in_mm) / 2 - distance, 0, spacing_in_mm)
    else:
        weights = np.clip(half_width - distance, 0, None)
    total = weights.sum(1, keepdims=True)
    inside = (position > -0.5 * spacing_in_mm - 1e-9) & (
        position < centres[-1] + 0.5 * spacing_in_mm + 1e-9
    )
    return np.where(inside[:, None], weights / np.maximum(total, 1e-12), 0.0).astype(np.float32)


def is_identity(matrix: Float[np.ndarray, "out in"]) -> bool:
    """Whether an interpolation changes nothing, but for rounding in a header."""
    n = len(matrix)
    return matrix.shape == (n, n) and bool(
        np.abs(matrix - np.eye(n, dtype=np.float32)).max() < 1e-4
    )


def resample_image(source: Volume, window: Window) -> ImageArray:
    """Read an image through a window; voxels outside the source are 0."""
    axes = _axes(source, window)
    return _framed(_apply(_seen(source.data, axes), axes), axes)


def crop_to_window(source: Volume, window: Window) -> tuple[Volume, Window]:
    """The part of a volume that a window reads, at least a voxel of it, and the window on it.

    Reading the part gives what reading the whole gives, at the price of the part.
    """
    x, y, z = (axis.columns for axis in _axes(source, window))
    start = np.array([part.start for part in (x, y, z)])
    affine = source.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    first_mm = (np.array(window.first_mm) - start * np.array(source.spacing_mm)).tolist()
    part = replace(source, data=source.data[x, y, z], affine=affine)
    return part, Window((first_mm[0], first_mm[1], first_mm[2]), window.grid)


def resample_label_map(source: Volume, window: Window, *, n_classes: int) -> LabelMap:
    """Read a label map through a window: the largest of the per-class linear interpolations.

    Where the grid gets coarser, what is interpolated is the share of the new voxel that a class
    fills. A vein thinner than about 1.5 new voxels fills none of them by half, so the vote alone
    would lose it (and nearest neighbour would break it at random). It is still the ridge of its
    class's membership, and what lies on a ridge goes to that class: a thin tube stays in one
    piece, one voxel wide, and a thick body keeps its volume. An axis that gets finer loses nothing,
    and the blur that it lays around a body is no ridge: ridges are found on the other axes first,
    and are as wide along it as they were.
    """
    axes = _axes(source, window, partial_volume=True)
    seen = _seen(source.data, axes)
    shape = tuple(axis.rows.stop - axis.rows.start for axis in axes)
    inside = vote(shape, (_member(seen == value, axes) for value in range(1, n_classes)))
    return _framed(inside, axes)


def _member(inside: Bool[np.ndarray, "x y z"], axes: list[_Axis]) -> Member:
    finer = [axis for axis in range(3) if axes[axis].finer]
    coarser = [axis for axis in range(3) if not axes[axis].finer]
    membership = _apply(inside, axes)
    if not finer:
        return membership, on_ridge(membership)
    if not coarser:
        return membership, np.zeros(membership.shape, dtype=bool)
    around = [(1, 1) if axis in finer else (0, 0) for axis in range(3)]  # beyond it lies nothing
    ridge = on_ridge(np.pad(_apply(inside, axes, coarser), around))
    ridge = ridge[tuple(slice(n, -n or None) for n, _ in around)]
    return membership, _apply(ridge, axes, finer) > CARRIED


def vote(shape: Shape, members: Iterable[Member]) -> LabelMap:
    """The label map of classes 1, 2, ...; the largest membership wins, background included.

    Args:
        members: of each class its membership (0 to 1) in each voxel, and its ridges, which go to it
            whatever the vote.
    """
    winner = np.zeros(shape, dtype=np.uint8)
    strongest = np.zeros(shape, dtype=np.float32)
    background = np.ones(shape, dtype=np.float32)
    ridge_winner, ridge_strongest = winner.copy(), strongest.copy()
    for value, (membership, ridge) in enumerate(members, start=1):
        background -= membership
        ahead = membership > strongest
        winner[ahead], strongest[ahead] = value, membership[ahead]
        ahead = ridge & (membership > ridge_strongest)
        ridge_winner[ahead], ridge_strongest[ahead] = value, membership[ahead]
    winner[background >= strongest] = 0
    return np.where(ridge_winner > 0, ridge_winner, winner)


def on_ridge(membership: ImageArray) -> Bool[np.ndarray, "x y z"]:
    """Voxels that are a maximum along two axes or more; of two equal neighbours the later one."""
    tolerance = 1e-3  # rounding must not make ridges on a plateau
    padded = np.pad(membership, 1, mode="edge")
    inner = slice(1, -1)
    maxima = np.zeros(membership.shape, dtype=np.uint8)
    for axis in range(3):
        before = padded[tuple(slice(-2) if i == axis else inner for i in range(3))]
        after = padded[tuple(slice(2, None) if i == axis else inner for i in range(3))]
        maxima += (membership >= before - tolerance) & (membership > after + tolerance)
    return (maxima >= 2) & (membership > RIDGE_MEMBERSHIP)


def place_label_map_back(
    label_map: LabelMap, window: Window, target: Volume, *, n_classes: int
) -> LabelMap:
    """The inverse of a crop: a label map on the window's grid, drawn on the target's own grid.

    Voxels of the target that the window does not cover are background.
    """
    crop = Volume(label_map, window.affine(target))
    x, y, z = (-np.array(window.first_mm)).tolist()
    return resample_label_map(
        crop, Window((x, y, z), Grid(target.shape, target.spacing_mm)), n_classes=n_classes
    )


@dataclass(frozen=True)
class _Axis:
    """An interpolation matrix without the rows and columns that are all zero.

    A window sees a part of its source, and lies on a part of it: the work is that of the parts.

    Attributes:
        weights: the matrix between ``rows`` and ``columns``.
        rows: voxels of the target that lie in the source, and one more on both sides, so that a
            neighbour outside is seen to be 0.
        columns: voxels of the source that are read.
        n_out: voxels of the target.
        finer: the target's voxels are smaller than the source's.
    """

    weights: Float[np.ndarray, "rows columns"]
    rows: slice
    columns: slice
    n_out: int
    finer: bool


def _axes(source: Volume, window: Window, *, partial_volume: bool = False) -> list[_Axis]:
    axes = []
    for axis in range(3):
        matrix = interpolation_matrix(
            source.shape[axis],
            window.grid.shape[axis],
            spacing_in_mm=source.spacing_mm[axis],
            spacing_out_mm=window.grid.spacing_mm[axis],
            first_mm=window.first_mm[axis],
            partial_volume=partial_volume,
        )
        finer = window.grid.spacing_mm[axis] < (1 - ALIKE) * source.spacing_mm[axis]
        rows = _span(np.any(matrix, axis=1), border=1)
        # A ridge that is found before a finer axis is read has neighbours along it too.
        columns = _span(np.any(matrix, axis=0), border=int(finer and partial_volume))
        axes.append(_Axis(matrix[rows, columns], rows, columns, len(matrix), finer))
    return axes


def _span(used: Bool[np.ndarray, " n"], *, border: int = 0) -> slice:
    """From the first True to the last; where there is none, the first voxel."""
    where = np.flatnonzero(used)
    first, last = (int(where[0]), int(where[-1])) if len(where) else (0, 0)
    return slice(max(first - border, 0), min(last + 1 + border, len(used)))


def _seen(data: ImageArray | LabelMap, axes: list[_Axis]) -> ImageArray | LabelMap:
    x, y, z = (axis.columns for axis in axes)
    return data[x, y, z]


def _apply(data: np.ndarray, axes: list[_Axis], along: Sequence[int] = (0, 1, 2)) -> ImageArray:
    data = data.astype(np.float32, copy=False)
    for axis in along:
        part = axes[axis]
        if is_identity(part.weights):
            continue
        data = np.moveaxis(np.tensordot(part.weights, data, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(data)


def _framed(inside: np.ndarray, axes: list[_Axis]) -> np.ndarray:
    """The whole target: 0 around what lies in the source."""
    x, y, z = axes
    whole = np.zeros((x.n_out, y.n_out, z.n_out), inside.dtype)
    whole[x.rows, y.rows, z.rows] = inside
    return whole
