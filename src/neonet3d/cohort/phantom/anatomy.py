"""Where body and liver are, as functions of world coordinates in mm.

Axes are RAS+ with the origin in the middle of the body: x to the patient's right, y to the front,
z to the head. Sizes of body and lobes: recipe. What cuts into the liver's back, and where its veins
enter, is ours, drawn so that an axial slice reads as an upper abdomen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neonet3d.cohort.phantom.fields import LatticeNoise, draw_lattice_noise
from neonet3d.cohort.phantom.grid import Float64Array, Vector
from neonet3d.cohort.phantom.shapes import ellipsoid_distance, smooth_maximum, smooth_minimum

# The box that random fields are drawn for, mm: the default field of view and a margin.
DOMAIN_LOW: Vector = (-165.0, -130.0, -115.0)
DOMAIN_HIGH: Vector = (165.0, 130.0, 115.0)

BODY_SEMI_AXES_MM = (148.0, 112.0)  # left-right, front-back (recipe)
WALL_MM = 14.0  # skin, fat and muscle between the liver and the air (recipe)
_FLAT_BACK_MM = 103.0  # a supine patient's back is flat this far behind the middle (ours)

# Centre and semi-axes in mm (recipe, turned into RAS+).
_RIGHT_LOBE = ((60.4, 6.4, 0.0), (76.0, 84.0, 74.0))
_LEFT_LOBE = ((-19.6, 50.4, 18.0), (76.0, 42.0, 40.0))
_VISCERAL_CUT = ((-31.6, -31.6, -38.0), (62.0, 72.0, 66.0))
_LOBE_BLEND_MM = 18.0
_SURFACE_MM = 4.0  # amplitude of the liver surface's undulation (recipe)
_SURFACE_LATTICE_MM = 45.0

# Where veins enter, before the patient's shift and scale (ours).
_HILUM = (27.0, -2.0, -18.0)
_CONFLUENCE = (-6.0, -10.0, -52.0)
_CAVA = (24.0, -34.0)
CAVA_RADIUS_MM = 11.0
_HEPATIC_OUTLET_Z = 44.0
# The right kidney hangs below the liver and moves with it (ours).
RIGHT_KIDNEY = ((62.0, -58.0, -66.0), (26.0, 23.0, 50.0))


@dataclass(frozen=True)
class Anatomy:
    """One patient's body and liver; every number that `draw_anatomy` drew.

    Args:
        body_semi_axes_mm: Half widths of the body left-right and front-back, mm.
        scale: Size of the liver relative to the model's.
        shift_mm: Offset of the liver and of what hangs on it, mm.
        lobe_scales: `(2, 3)` extra scale of the semi-axes of the right and left lobe.
        surface: Field that undulates the liver's surface.
    """

    body_semi_axes_mm: tuple[float, float]
    scale: float
    shift_mm: Vector
    lobe_scales: Float64Array
    surface: LatticeNoise

    def place(self, point_mm: Vector) -> Float64Array:
        """A point of the model's liver in this patient, `(3,)` in mm."""
        return np.asarray(self.scale * np.asarray(point_mm) + np.asarray(self.shift_mm))

    @property
    def hilum_mm(self) -> Float64Array:
        """Where the portal vein divides, `(3,)` in mm."""
        return self.place(_HILUM)

    @property
    def portal_stem_mm(self) -> Float64Array:
        """The portal trunk from the confluence to the hilum, `(n, 3)` in mm, 3 mm apart."""
        t = np.linspace(0, 1, 18)[:, None]
        return np.asarray((1 - t) * self.place(_CONFLUENCE) + t * self.hilum_mm)

    @property
    def hepatic_stem_mm(self) -> Float64Array:
        """From the vena cava a little way into the liver, `(n, 3)` in mm."""
        x, y = self.cava_mm
        outlet = np.array([x, y, self.place((0.0, 0.0, _HEPATIC_OUTLET_Z))[2]])
        return np.asarray(outlet + np.linspace(0, 1, 3)[:, None] * np.array([3.0, 6.0, -2.0]))

    @property
    def cava_mm(self) -> tuple[float, float]:
        """Where the vena cava runs, x and y in mm."""
        x, y, _ = self.place((*_CAVA, 0.0))
        return float(x), float(y)

    def liver_box_mm(self) -> tuple[Float64Array, Float64Array]:
        """Corners of a box that holds the liver and the portal trunk, `(3,)` each in mm."""
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        for lobe, (centre, semi) in enumerate((_RIGHT_LOBE, _LEFT_LOBE)):
            reach = self.scale * self.lobe_scales[lobe] * semi + 2 * _SURFACE_MM
            low = np.minimum(low, self.place(centre) - reach)
            high = np.maximum(high, self.place(centre) + reach)
        low = np.minimum(low, self.portal_stem_mm.min(axis=0) - 10)
        wall = np.array([b - WALL_MM for b in self.body_semi_axes_mm] + [np.inf])
        return np.maximum(low, -wall), np.minimum(high, wall)


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a body: liver scale N(1, .06), shift N(0, 6) mm, lobes 5-10 % (recipe)."""
    body = rng.normal(1, 0.015, 2).clip(0.96, 1.03) * BODY_SEMI_AXES_MM
    shift = rng.normal(0, 6, 3).clip(-14, 14)
    return Anatomy(
        body_semi_axes_mm=(float(body[0]), float(body[1])),
        scale=float(np.clip(rng.normal(1, 0.06), 0.86, 1.14)),
        shift_mm=(float(shift[0]), float(shift[1]), float(shift[2])),
        lobe_scales=rng.normal(1, [[0.05] * 3, [0.10] * 3]).clip(0.75, 1.25),
        surface=draw_lattice_noise(rng, _SURFACE_LATTICE_MM, DOMAIN_LOW, DOMAIN_HIGH),
    )


def body_distance(anatomy: Anatomy, x: Any, y: Any) -> Any:
    """Signed distance to the skin in mm: an elliptic cylinder with a flat back."""
    ellipse = ellipsoid_distance(
        x, y, np.float32(0), (0.0, 0.0, 0.0), (*anatomy.body_semi_axes_mm, np.inf)
    )
    return smooth_maximum(ellipse, -y - _FLAT_BACK_MM, 25.0)


def liver_distance(anatomy: Anatomy, x: Any, y: Any, z: Any, surface: Any) -> Any:
    """Signed distance to the liver's surface in mm (first order), negative inside.

    Two ellipsoids blended over 18 mm, less an ellipsoid for the visceral side (recipe), less the
    beds of spine, vena cava and right kidney, and 14 mm inside the skin.

    Args:
        anatomy: The patient.
        x: Coordinates in mm that broadcast with `y` and `z`.
        y: See `x`.
        z: See `x`.
        surface: `anatomy.surface` at these coordinates.
    """

    def solid(part: tuple[Vector, Vector], scales: Any = 1.0) -> Any:
        centre, semi = anatomy.place(part[0]), anatomy.scale * np.multiply(part[1], scales)
        return ellipsoid_distance(x, y, z, _plain(centre), _plain(semi))

    right = solid(_RIGHT_LOBE, anatomy.lobe_scales[0])
    left = solid(_LEFT_LOBE, anatomy.lobe_scales[1])
    distance = smooth_minimum(right, left, _LOBE_BLEND_MM)
    distance = smooth_maximum(distance, -solid(_VISCERAL_CUT), 8.0)
    distance = distance - np.float32(_SURFACE_MM) * surface
    spine = ellipsoid_distance(x, y, np.float32(0), (-6.0, -62.0, 0.0), (33.0, 37.0, np.inf))
    distance = smooth_maximum(distance, -spine, 10.0)
    cava = ellipsoid_distance(
        x, y, np.float32(0), (*anatomy.cava_mm, 0.0), (CAVA_RADIUS_MM + 1,) * 2 + (np.inf,)
    )
    distance = np.maximum(distance, -cava)
    bed = solid((RIGHT_KIDNEY[0], _plain(np.add(RIGHT_KIDNEY[1], 4.0))))
    distance = smooth_maximum(distance, -bed, 8.0)
    return np.maximum(distance, body_distance(anatomy, x, y) + np.float32(WALL_MM))


def points_in_liver(
    anatomy: Anatomy, rng: np.random.Generator, count: int, depth_mm: float
) -> Float64Array:
    """Points spread evenly through the liver, `depth_mm` or more inside it, `(count, 3)` in mm."""
    low, high = anatomy.liver_box_mm()
    found = np.zeros((0, 3))
    while len(found) < count:
        points = rng.uniform(low, high, (8 * count, 3))
        found = np.concatenate([found, points[liver_depth(anatomy, points) > depth_mm]])
    return found[:count]


def liver_depth(anatomy: Anatomy, points_mm: Float64Array) -> Float64Array:
    """Depth of `points_mm` `(n, 3)` below the liver's surface, `(n,)` in mm; negative outside."""
    surface = anatomy.surface.at_points(points_mm)
    x, y, z = points_mm.T
    return np.asarray(-liver_distance(anatomy, x, y, z, surface))


def _plain(values: Any) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
