"""Smooth random fields that are the same at every resolution.

A field is white noise on a lattice, interpolated by cubic B-splines:
n(p) = sum_ijk c_ijk b(x/h - i) b(y/h - j) b(z/h - k) / .332. It is a function of world coordinates,
so a coarse and a fine rendering of one patient show the same texture, and three small matrix
products evaluate it on a whole grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neonet3d.cohort.phantom.grid import Float64Array, FloatArray, Grid, Vector

# Standard deviation of the spline sum over unit white noise, averaged over the position within a
# lattice cell: the integral of b(u)² is 151/315 along each axis, so (151/315)^(3/2) = .332 [C].
_SPLINE_DEVIATION = (151 / 315) ** 1.5


@dataclass(frozen=True)
class LatticeNoise:
    """A zero-mean, unit-variance random field.

    Args:
        coefficients: White noise on the lattice, `(a, b, c)` float32.
        spacing_mm: Distance of lattice points in mm; structures are about twice as wide.
        first_mm: Position of lattice point (0, 0, 0) in mm.
    """

    coefficients: FloatArray
    spacing_mm: float
    first_mm: Vector

    def on_grid(self, grid: Grid) -> FloatArray:
        """The field at every sample of `grid`, float32 of `grid.shape`.

        Beyond the box that the lattice was drawn for, the value of the nearest edge is held.
        """
        coefficients = self.coefficients
        bases = []
        for axis, positions in enumerate(grid.axes_mm()):
            basis = self._basis(positions.astype(np.float64), axis)
            # Most of the lattice lies outside a small box: leave it out of the products.
            used = np.flatnonzero(basis.any(axis=0)) if basis.size else np.zeros(0, int)
            start, stop = (used[0], used[-1] + 1) if used.size else (0, 1)
            bases.append(basis[:, start:stop].astype(np.float32))
            coefficients = coefficients.take(np.arange(start, stop), axis=axis)
        a, b, c = coefficients.shape
        nx = grid.shape[0]
        field: FloatArray = (bases[0] @ coefficients.reshape(a, b * c)).reshape(nx, b, c)
        field = np.matmul(bases[1], field)  # (nx, ny, c)
        field = field @ bases[2].T  # (nx, ny, nz)
        field *= np.float32(1 / _SPLINE_DEVIATION)
        return field

    def at_points(self, points_mm: Float64Array) -> Float64Array:
        """The field at `points_mm` `(n, 3)`, float64 `(n,)`; meant for coarse lattices."""
        x, y, z = (self._basis(points_mm[:, axis], axis) for axis in range(3))
        value = np.einsum("na,abc->nbc", x, self.coefficients.astype(np.float64))
        value = np.einsum("nb,nbc->nc", y, value)
        return np.asarray((value * z).sum(axis=1) / _SPLINE_DEVIATION)

    def _basis(self, positions_mm: Float64Array, axis: int) -> Float64Array:
        """Weight of every lattice plane along one axis at every position, `(n, lattice)`."""
        size = self.coefficients.shape[axis]
        # One plane before and two behind the cell are needed: hold the edge value beyond them.
        u = np.clip((positions_mm - self.first_mm[axis]) / self.spacing_mm, 1.0, size - 3.0)
        distance = np.abs(u[:, None] - np.arange(size)[None, :])
        near = 2 / 3 - distance**2 + distance**3 / 2
        far = np.clip(2 - distance, 0, None) ** 3 / 6
        return np.where(distance < 1, near, far)


def draw_lattice_noise(
    rng: np.random.Generator, spacing_mm: float, low_mm: Vector, high_mm: Vector
) -> LatticeNoise:
    """Draw a field that is defined over the box `[low_mm, high_mm]`.

    Args:
        rng: Source of the lattice's white noise.
        spacing_mm: Distance of lattice points in mm.
        low_mm: Lower corner of the box in mm.
        high_mm: Upper corner of the box in mm.
    """
    extent = np.subtract(high_mm, low_mm)
    size = np.ceil(extent / spacing_mm).astype(int) + 4
    coefficients = rng.standard_normal(tuple(size), dtype=np.float32)
    first = tuple(float(low - spacing_mm) for low in low_mm)
    return LatticeNoise(coefficients, float(spacing_mm), (first[0], first[1], first[2]))
