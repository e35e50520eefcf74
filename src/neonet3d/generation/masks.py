"""The mask bank: a training mask, deformed as another patient's anatomy might be.

A random affine (rotation, scale) and a smooth elastic field move the label map; the result is
accepted only if the tumour keeps its topology and most of its volume (after MAISI's recipe).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from neonet3d.errors import RunError
from neonet3d.types import LabelMap, LabelSchema, Shape, Triple

ROTATION_DEG = 8.0  # largest, about each axis
SCALE = 0.12  # largest relative change of size
ELASTIC_MM = 2.5  # standard deviation of the elastic displacement, at most
ELASTIC_SHARE = 1 / 32  # and of a patch's shortest side: what fills a small patch is thin
ELASTIC_REACH_MM = 20.0  # over which it varies
MARGIN_SIGMAS = 3.0  # of the smoothing, drawn around a patch
VOLUME_KEPT = (0.6, 1.6)  # of the tumour
SHARE_LOST = 0.05  # of the tumour that may come off its largest component
ATTEMPTS = 20


@dataclass(frozen=True)
class Deformation:
    """Where each voxel of the new map is read from.

    Attributes:
        coordinates: (3, x, y, z) voxel positions in the old map.
    """

    coordinates: Float[np.ndarray, "3 x y z"]

    def apply(self, label_map: LabelMap, n_classes: int) -> LabelMap:
        """The largest of the linearly interpolated memberships of each class."""
        memberships = [
            ndimage.map_coordinates(
                (label_map == k).astype(np.float32), self.coordinates, order=1, mode="nearest"
            )
            for k in range(n_classes)
        ]
        return np.stack(memberships).argmax(0).astype(np.uint8)


def draw_deformation(shape: Shape, spacing_mm: Triple, rng: np.random.Generator) -> Deformation:
    """Rotation, scale and elastic field, drawn about the middle of the grid."""
    spacing = np.array(spacing_mm)
    angles = np.deg2rad(rng.uniform(-ROTATION_DEG, ROTATION_DEG, 3))
    linear = _rotation(angles) * (1 + rng.uniform(-SCALE, SCALE))
    centre = (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    position_mm = (index - centre[:, None, None, None]) * spacing[:, None, None, None]
    moved_mm = np.einsum("ij,jxyz->ixyz", linear, position_mm)
    for axis in range(3):
        moved_mm[axis] += _elastic_mm(shape, spacing, rng)
    coordinates = moved_mm / spacing[:, None, None, None] + centre[:, None, None, None]
    return Deformation(coordinates.astype(np.float32))


def _elastic_mm(
    shape: Shape, spacing_mm: Float[np.ndarray, 3], rng: np.random.Generator
) -> Float[np.ndarray, "x y z"]:
    """A smooth displacement along one axis that bends a patch and does not move it.

    A window of a stationary field, its mean taken off: of a patch not much wider than the reach, a
    field smoothed within the patch would be mostly mean, and carry it away.
    """
    extent_mm = float((np.array(shape) * spacing_mm).min())
    sigma = ELASTIC_REACH_MM / 2 / spacing_mm
    margin = np.ceil(MARGIN_SIGMAS * sigma).astype(int)
    field = rng.standard_normal(tuple(np.array(shape) + 2 * margin))
    field = ndimage.gaussian_filter(field, sigma, mode="wrap", truncate=MARGIN_SIGMAS)
    field *= min(ELASTIC_MM, ELASTIC_SHARE * extent_mm) / field.std()
    inside = tuple(slice(m, m + n) for m, n in zip(margin, shape, strict=True))
    window: Float[np.ndarray, "x y z"] = field[inside] - field[inside].mean()
    return window


def deform_mask(
    label_map: LabelMap, schema: LabelSchema, spacing_mm: Triple, rng: np.random.Generator
) -> LabelMap:
    """A new label map whose tumour hangs together as before and has a similar volume.

    Raises:
        RunError: no acceptable deformation in ``ATTEMPTS`` draws.
    """
    x, y, z = label_map.shape
    for _ in range(ATTEMPTS):
        new = draw_deformation((x, y, z), spacing_mm, rng).apply(label_map, len(schema))
        if "tumour" not in schema or _similar(label_map, new, schema.value("tumour")):
            return new
    raise RunError(
        f"{ATTEMPTS} deformations of a mask all broke or lost its tumour, which is very small. "
        "Leave the case out."
    )


def _similar(old: LabelMap, new: LabelMap, value: int) -> bool:
    before, after = int((old == value).sum()), int((new == value).sum())
    if before == 0:
        return after == 0
    low, high = VOLUME_KEPT
    if not low <= after / before <= high:
        return False
    return _main_share(new == value) >= _main_share(old == value) - SHARE_LOST


def _main_share(mask: Bool[np.ndarray, "x y z"]) -> float:
    """Share of a mask that its largest component (voxels touching at a corner) holds."""
    parts, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    return float(np.bincount(parts.ravel())[1:].max() / mask.sum())


def _rotation(angles: Float[np.ndarray, 3]) -> Float[np.ndarray, "3 3"]:
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles), np.cos(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x
