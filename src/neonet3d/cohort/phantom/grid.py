"""Sample positions in RAS+ millimetres, and the way from a fine grid to a scan's own grid.

The phantom is a set of functions of world coordinates. The origin is the middle of the body, x
grows to the patient's right, y to the front, z to the head. A `Grid` says where to evaluate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
Float64Array: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Vector: TypeAlias = tuple[float, float, float]
Box: TypeAlias = tuple[slice, slice, slice]

# A voxel of the scan is the mean of 2 x 2 x 2 rendered samples: partial volume (recipe).
OVERSAMPLING = 2

BACKGROUND, LIVER, PORTAL_VEIN, HEPATIC_VEIN, TUMOUR = range(5)

# A vein narrower than a voxel rarely has the largest share of it. At .35 a branch of 1.25 mm radius
# that runs within a 2.5 x 5 mm voxel cross-section (39 %) survives (ours).
VEIN_FRACTION = 0.35


@dataclass(frozen=True)
class Grid:
    """A regular grid of sample centres, axis-aligned in RAS+.

    Args:
        first_mm: Centre of sample (0, 0, 0) in mm.
        spacing_mm: Distance of neighbouring centres along x, y, z in mm, all positive.
        shape: Number of samples along x, y, z.
    """

    first_mm: Vector
    spacing_mm: Vector
    shape: tuple[int, int, int]

    @staticmethod
    def centred(spacing_mm: Vector, extent_mm: Vector, centre_mm: Vector = (0.0, 0.0, 0.0)) -> Grid:
        """The grid of whole voxels nearest in size to `extent_mm`, centred on `centre_mm` (mm).

        Raises:
            ValueError: If a spacing or an extent is not positive and finite, or if less than one
                voxel fits.
        """
        spacing, extent = np.asarray(spacing_mm, float), np.asarray(extent_mm, float)
        for name, values in (("spacing_mm", spacing), ("field of view in mm", extent)):
            if values.shape != (3,) or not np.all(np.isfinite(values) & (values > 0)):
                raise ValueError(
                    f"{name} is {tuple(values.tolist())}: give three positive numbers (x, y, z)."
                )
        counts = np.rint(extent / spacing).astype(int)
        if np.any(counts < 1):
            raise ValueError(
                f"A field of view of {tuple(extent.tolist())} mm holds no whole voxel of "
                f"{tuple(spacing.tolist())} mm: enlarge the one or shrink the other."
            )
        first = np.asarray(centre_mm, float) - spacing * (counts - 1) / 2
        return Grid(_vector(first), _vector(spacing), tuple(counts.tolist()))

    @property
    def affine(self) -> Float64Array:
        """Index to RAS+ mm, `(4, 4)` float64."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = self.first_mm
        return affine

    def axes_mm(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Sample centres along each axis in mm, three 1-D float32 arrays."""
        x, y, z = (
            (first + spacing * np.arange(count)).astype(np.float32)
            for first, spacing, count in zip(
                self.first_mm, self.spacing_mm, self.shape, strict=True
            )
        )
        return x, y, z

    def mesh_mm(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The axes shaped `(nx, 1, 1)`, `(1, ny, 1)`, `(1, 1, nz)`, ready to broadcast."""
        x, y, z = self.axes_mm()
        return x[:, None, None], y[None, :, None], z[None, None, :]

    def box(self, low_mm: Sequence[float] | Any, high_mm: Sequence[float] | Any) -> Box:
        """Slices of the samples whose cells touch the box `[low_mm, high_mm]`; may be empty."""
        slices = []
        for first, spacing, count, low, high in zip(
            self.first_mm, self.spacing_mm, self.shape, low_mm, high_mm, strict=True
        ):
            start = int(np.clip(np.floor((low - first) / spacing + 0.5), 0, count))
            stop = int(np.clip(np.floor((high - first) / spacing + 0.5) + 1, start, count))
            slices.append(slice(start, stop))
        return slices[0], slices[1], slices[2]

    def crop(self, box: Box) -> Grid:
        """The part of the grid that `box` (slices of step one) cuts out."""
        first = [
            f + s * b.start for f, s, b in zip(self.first_mm, self.spacing_mm, box, strict=True)
        ]
        shape = tuple(b.stop - b.start for b in box)
        return Grid(_vector(first), self.spacing_mm, (shape[0], shape[1], shape[2]))

    def refined(self, factor: int = OVERSAMPLING) -> Grid:
        """The grid with every cell cut into `factor`³ equal cells."""
        spacing = np.asarray(self.spacing_mm) / factor
        first = np.asarray(self.first_mm) - spacing * (factor - 1) / 2
        nx, ny, nz = self.shape
        return Grid(_vector(first), _vector(spacing), (nx * factor, ny * factor, nz * factor))


def _vector(values: Any) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def refine_box(box: Box, factor: int = OVERSAMPLING) -> Box:
    """Slices of a grid, as slices of its refinement."""
    x, y, z = (slice(b.start * factor, b.stop * factor) for b in box)
    return x, y, z


def average_blocks(values: FloatArray, factor: int = OVERSAMPLING) -> FloatArray:
    """Mean over blocks of `factor`³: what a voxel measures of the signals within it.

    Args:
        values: `(factor nx, factor ny, factor nz)`, any unit.

    Returns:
        `(nx, ny, nz)` float32, in the unit of `values`.
    """
    # Adding strided views is several times faster than reshape + mean over three short axes.
    for axis in range(3):
        parts = [_every(values, axis, start, factor) for start in range(factor)]
        values = np.add(parts[0], parts[1]) if factor > 1 else parts[0]
        for part in parts[2:]:
            values += part
    return values * np.float32(1 / factor**3)


def _every(values: FloatArray, axis: int, start: int, step: int) -> FloatArray:
    index = [slice(None)] * 3
    index[axis] = slice(start, None, step)
    return values[tuple(index)]


def largest_class(
    liver: FloatArray, portal: FloatArray, hepatic: FloatArray, tumour: FloatArray
) -> npt.NDArray[np.uint8]:
    """One label a voxel from the share of the voxel that each class fills.

    The class with the largest share wins, with one exception: a vein wins as soon as it fills
    `VEIN_FRACTION` (.35) of the voxel, unless tumour fills more than the vein does. Otherwise every
    branch narrower than a voxel would vanish from the mask although the image shows it.

    Args:
        liver: Share of liver *outside* veins and tumour, `(nx, ny, nz)`, 0-1.
        portal: Share of portal vein.
        hepatic: Share of hepatic vein.
        tumour: Share of tumour. The four add up to at most 1; the rest is background.

    Returns:
        `(nx, ny, nz)` uint8: 0 background, 1 liver, 2 portal vein, 3 hepatic vein, 4 tumour.
    """
    background = 1 - liver - portal - hepatic - tumour
    shares = np.stack([background, liver, portal, hepatic, tumour])
    labels: npt.NDArray[np.uint8] = shares.argmax(axis=0).astype(np.uint8)
    vein = np.maximum(portal, hepatic)
    survives = (vein >= VEIN_FRACTION) & (vein >= tumour)
    labels[survives] = np.where(portal >= hepatic, PORTAL_VEIN, HEPATIC_VEIN)[survives]
    return labels
