"""The tumour's shape: a lobulated ellipsoid at a portal branch, and its ragged margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from neonet3d.cohort.phantom.anatomy import Anatomy, liver_depth
from neonet3d.cohort.phantom.fields import LatticeNoise, draw_lattice_noise
from neonet3d.cohort.phantom.grid import Float64Array, FloatArray, Grid
from neonet3d.cohort.phantom.invasion import Invasion
from neonet3d.cohort.phantom.vessels import VesselTree

_MEDIAN_RADIUS_MM = 15.5  # recipe
_RADIUS_RANGE_MM = (8.0, 27.0)
_SIZE_EFFECT = 0.24  # of the size sign on log radius (recipe)
_LOBES = 12  # bumps on the surface (ours)
_LOBE_HEIGHT = 0.075  # standard deviation of a bump's height, share of the radius (ours)
_RIPPLE_MM = 0.6  # fine unevenness of the gross surface (recipe)
_FIELD_REACH_MM = 52.0  # fields are drawn this far around the centre: greatest radius + margin
_VEIN_RADIUS_MM, _VEIN_SPREAD_MM = 2.2, 1.2  # tumours sit at middle-sized branches (recipe)
_HILUM_EFFECT, _HILUM_SCALE_MM = 0.45, 30.0
_OFFSET_SHARE = 0.45  # of the radius: the tumour is not centred on its branch (recipe)


@dataclass(frozen=True)
class Tumour:
    """A tumour's gross shape, its interior and its fringe.

    Args:
        centre_mm: `(3,)` in RAS+ mm.
        radius_mm: Radius of the sphere that the shape departs from, mm.
        axes: `(3,)` relative semi-axes, along the columns of `rotation`.
        rotation: `(3, 3)` orthogonal.
        lobe_directions: `(k, 3)` unit vectors, in the tumour's own axes.
        lobe_heights: `(k,)` relative heights.
        lobe_sharpness: `(k,)` concentration of a lobe, about 1 / its angular variance in rad².
        blur_mm: How gradually tumour turns into liver, mm.
        halo: Loss of uptake in the liver at the tumour's surface, 0-1.
        halo_mm: Distance over which it fades by e, mm.
        ripple: Field of the gross surface.
        coarse: Field of the fringe, 5.5 mm.
        fine: Field of the fringe, 3 mm.
        mottle: Field of the interior.
    """

    centre_mm: Float64Array
    radius_mm: float
    axes: Float64Array
    rotation: Float64Array
    lobe_directions: Float64Array
    lobe_heights: Float64Array
    lobe_sharpness: Float64Array
    blur_mm: float
    halo: float
    halo_mm: float
    ripple: LatticeNoise
    coarse: LatticeNoise
    fine: LatticeNoise
    mottle: LatticeNoise

    @property
    def reach_mm(self) -> float:
        """Radius in mm of a ball that holds the gross tumour, lobes included."""
        highest = 1 + 2 * float(np.abs(self.lobe_heights).max())
        return min(self.radius_mm * float(self.axes.max()) * highest + 2, _FIELD_REACH_MM)


def draw_tumour(
    rng: np.random.Generator,
    anatomy: Anatomy,
    portal: VesselTree,
    portal_radii_mm: Float64Array,
    invasion: Invasion,
) -> Tumour:
    """Draw a tumour at a middle-sized portal branch (recipe, "Tumour").

    A node of radius r at d mm from the hilum has the weight
    exp(-((r - 2.2) / 1.2)² / 2) exp(-.45 a_hilum d / 30).

    Args:
        rng: Source of all draws.
        anatomy: The patient.
        portal: The portal tree before branches are added around the tumour.
        portal_radii_mm: `(n,)` radii of its nodes in mm.
        invasion: Gives the signs `hilum` and `size`.
    """
    radius = _MEDIAN_RADIUS_MM * float(np.exp(-_SIZE_EFFECT * invasion.size))
    radius = float(np.clip(radius, *_RADIUS_RANGE_MM))
    to_hilum = np.linalg.norm(portal.positions_mm - anatomy.hilum_mm, axis=1)
    log_weight = -0.5 * ((portal_radii_mm - _VEIN_RADIUS_MM) / _VEIN_SPREAD_MM) ** 2
    log_weight -= _HILUM_EFFECT * invasion.hilum * to_hilum / _HILUM_SCALE_MM
    weight = np.exp(log_weight - log_weight.max()) * (portal.branch > 0)
    nodes = rng.choice(len(weight), 32, p=weight / weight.sum())
    offsets = rng.normal(0, _OFFSET_SHARE * radius / np.sqrt(3), (32, 3))
    candidates = portal.positions_mm[nodes] + offsets
    # Part of a tumour may bulge against the capsule, but its centre lies in the liver.
    deep = np.flatnonzero(liver_depth(anatomy, candidates) > 0.55 * radius)
    centre = candidates[deep[0] if len(deep) else 0]
    if not len(deep):
        depth = liver_depth(anatomy, portal.positions_mm)
        centre = portal.positions_mm[int(np.argmax(np.where(weight > 0, depth, -np.inf)))]
    low, high = centre - _FIELD_REACH_MM, centre + _FIELD_REACH_MM

    def field(spacing_mm: float) -> LatticeNoise:
        return draw_lattice_noise(rng, spacing_mm, tuple(low), tuple(high))

    directions = rng.standard_normal((_LOBES, 3))
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return Tumour(
        centre_mm=centre,
        radius_mm=radius,
        axes=rng.uniform(0.82, 1.2, 3),
        rotation=rotation,
        lobe_directions=directions / np.linalg.norm(directions, axis=1, keepdims=True),
        lobe_heights=rng.normal(0, _LOBE_HEIGHT, _LOBES).clip(-0.16, 0.16),
        lobe_sharpness=rng.uniform(3, 14, _LOBES),
        blur_mm=float(rng.uniform(0.8, 1.4)),
        halo=float(min(rng.exponential(0.03), 0.25)),
        halo_mm=float(rng.uniform(4, 9)),
        ripple=field(9.0),
        coarse=field(5.5),
        fine=field(3.0),
        mottle=field(6.0),
    )


def gross_distance(tumour: Tumour, x: Any, y: Any, z: Any) -> Any:
    """Signed distance to the smooth shape in mm, without its ripple; first order.

    The radius in direction u is R (1 + sum_k h_k (exp(κ_k (u·v_k - 1)) - mean)): von Mises-Fisher
    bumps, which no axis prefers. Their mean over the sphere is taken away so that lobes change the
    shape and not the size.

    Args:
        tumour: The tumour.
        x: Coordinates in mm that broadcast with `y` and `z`.
        y: See `x`.
        z: See `x`.
    """
    dx, dy, dz = (v - np.float32(c) for v, c in zip((x, y, z), tumour.centre_mm, strict=True))
    turn = (tumour.rotation / tumour.axes).astype(np.float32)  # columns: own axes, scaled
    own = [dx * turn[0, k] + dy * turn[1, k] + dz * turn[2, k] for k in range(3)]
    own_length = np.sqrt(own[0] ** 2 + own[1] ** 2 + own[2] ** 2) + np.float32(1e-3)
    length = np.sqrt(dx * dx + dy * dy + dz * dz) + np.float32(1e-3)
    shape = np.ones_like(own_length)
    for direction, height, kappa in zip(
        tumour.lobe_directions.astype(np.float32),
        tumour.lobe_heights.astype(np.float32),
        tumour.lobe_sharpness.astype(np.float32),
        strict=True,
    ):
        along = own[0] * direction[0] + own[1] * direction[1] + own[2] * direction[2]
        mean = (1 - np.exp(-2 * kappa)) / (2 * kappa)
        shape += height * (np.exp(kappa * (along / own_length - 1)) - mean)
    # One mm in the tumour's scaled axes is length / own_length mm in the world.
    return (own_length - np.float32(tumour.radius_mm) * shape) * (length / own_length)


def mask_distance(tumour: Tumour, grid: Grid) -> FloatArray:
    """Signed distance in mm to what a radiologist outlines: it never sees the margin sign."""
    distance = gross_distance(tumour, *grid.mesh_mm())
    return np.asarray(
        distance - np.float32(_RIPPLE_MM) * tumour.ripple.on_grid(grid), dtype=np.float32
    )


def tumour_fraction(
    tumour: Tumour, grid: Grid, distance: FloatArray, margin_mm: float
) -> FloatArray:
    """Share of tumour tissue, 0-1: the mask's shape with tongues that reach into the liver.

    t_img = t - m clip(.8 n(5.5) + .6 n(3), -.3, 2.5) exp(-((t - 2) / 5)²), and the share is
    sigmoid(-t_img / (.6 blur)) (recipe).

    Args:
        tumour: The tumour.
        grid: Where to evaluate.
        distance: `mask_distance` on `grid`, mm.
        margin_mm: m, how far the tongues reach, mm.
    """
    tongues = np.float32(0.8) * tumour.coarse.on_grid(grid)
    tongues += np.float32(0.6) * tumour.fine.on_grid(grid)
    np.clip(tongues, -0.3, 2.5, out=tongues)
    tongues *= np.exp(-(((distance - np.float32(2)) / np.float32(5)) ** 2))
    image_distance = distance - np.float32(margin_mm) * tongues
    share: FloatArray = expit(image_distance * np.float32(-1 / (0.6 * tumour.blur_mm)))
    return share


def tumour_r1(
    tumour: Tumour,
    grid: Grid,
    distance: FloatArray,
    *,
    rim_ms: float,
    cloud_ms: float,
    cloud_weight: float,
    texture: float,
) -> FloatArray:
    """1/T1 in 1/ms within the tumour: a dark rim around a brighter, fibrous "cloud" [S].

    The cloud begins a third of the radius below the surface; both are mottled by `texture`.

    Args:
        tumour: The tumour.
        grid: Where to evaluate.
        distance: `mask_distance` on `grid`, mm.
        rim_ms: T1 of the rim in ms.
        cloud_ms: T1 of the centre in ms.
        cloud_weight: Share of the cloud in the centre, 0-1.
        texture: Relative standard deviation of R1.
    """
    mottle = tumour.mottle.on_grid(grid)
    # The field moves the cloud's edge by .1 R, so that it is not a copy of the outline.
    depth = -distance / np.float32(tumour.radius_mm) + np.float32(0.10) * mottle
    cloud = expit((depth - np.float32(0.36)) / np.float32(0.08)) * np.float32(cloud_weight)
    r1 = np.float32(1 / rim_ms) + cloud * np.float32(1 / cloud_ms - 1 / rim_ms)
    r1 *= np.maximum(1 + np.float32(texture) * mottle, np.float32(0.5))
    return np.asarray(r1, dtype=np.float32)
