"""Shape of a region: morphological features of the IBSI manual, section 3.1 (arXiv 1612.07003)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.measure import marching_cubes, mesh_surface_area

from neonet3d.types import Triple


def shape_features(region: Bool[np.ndarray, "x y z"], spacing_mm: Triple) -> dict[str, float]:
    """Eighteen figures of a region; lengths in mm.

    Surface and volume are those of the mesh through the middle between voxels (marching cubes),
    ``approximate_volume`` that of the voxels. Axes are those of the ellipsoid with the same
    covariance.

    Raises:
        ValueError: an empty region.
    """
    if not region.any():
        raise ValueError("an empty region has no shape")
    vertices, faces, _, _ = marching_cubes(np.pad(region, 1).astype(float), 0.5, spacing=spacing_mm)
    volume, area = _mesh_volume(vertices, faces), float(mesh_surface_area(vertices, faces))
    hull = ConvexHull(vertices)
    box = np.ptp(vertices, axis=0)
    major, minor, least = _axes_mm(region, spacing_mm)
    roundness = 36 * np.pi * volume**2 / area**3  # compactness 2: 1 for a ball
    return {
        "volume": volume,
        "approximate_volume": float(region.sum() * np.prod(spacing_mm)),
        "surface_area": area,
        "surface_to_volume": area / volume,
        "compactness_1": volume / (np.sqrt(np.pi) * area**1.5),
        "compactness_2": float(roundness),
        "spherical_disproportion": float(roundness ** (-1 / 3)),
        "sphericity": float(roundness ** (1 / 3)),
        "asphericity": float(roundness ** (-1 / 3) - 1),
        "largest_diameter": float(pdist(vertices[hull.vertices]).max()),
        "major_axis": major,
        "minor_axis": minor,
        "least_axis": least,
        "elongation": minor / major if major else 1.0,
        "flatness": least / major if major else 1.0,
        "box_volume_density": volume / float(box.prod()),
        "hull_volume_density": volume / float(hull.volume),
        "hull_area_density": area / float(hull.area),
    }


def _mesh_volume(vertices: Float[np.ndarray, "v 3"], faces: np.ndarray) -> float:
    """Sum of the signed tetrahedra between each face and the origin."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float(abs(np.einsum("fi,fi->", a, np.cross(b, c))) / 6)


def _axes_mm(region: Bool[np.ndarray, "x y z"], spacing_mm: Triple) -> tuple[float, float, float]:
    """Lengths of the principal axes, the longest first."""
    places = np.argwhere(region) * np.array(spacing_mm)
    if len(places) == 1:
        return 0.0, 0.0, 0.0
    variances = np.linalg.eigvalsh(np.cov(places.T)).clip(0)
    least, minor, major = (4 * np.sqrt(variances)).tolist()
    return major, minor, least
