"""Editing the tumour of a label map: insert, move, grow, shrink, remove.

A tumour is the set of voxels with the greatest signed distance (mm) to a surface, so that another
size is the same shape with its surface moved. Only liver voxels may become tumour: veins and other
classes stay as they are, voxel by voxel, and nothing lies outside the liver. Where a shape would
lose too much of itself to veins or to the liver's border, the edit is refused.

Where a tumour leaves, each voxel takes the class that its surroundings suggest (normalised
convolution, Knutsson & Westin, CVPR 1993), and liver where a vein would come apart from its tree or
join two: the pieces of each vein stay as many as they were. It never takes background, so the liver
keeps its outline. The rules and limits are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from neonet3d.errors import InputError, RunError
from neonet3d.generation.lesion_shape import draw_shape_mm, tumour_distance_mm
from neonet3d.metrics.lesions import TOUCHING
from neonet3d.types import LabelMap, LabelSchema, Shape, Triple

SHARE_OUTSIDE = 0.1  # of a shape that may be cut off at the liver's border
SHARE_ON_OTHERS = 0.15  # of a shape that veins and other classes may take away
FILL_REACH_MM = 3.0  # standard deviation of the surroundings that say what fills a hole
ATTEMPTS = 50


@dataclass(frozen=True)
class TumourEdit:
    """What is done to the tumour of a map before an image is drawn for it.

    Attributes:
        move: to another place of the liver.
        volume_mm3: grow or shrink it to this volume, or insert one where there is none.
    """

    move: bool
    volume_mm3: float | None

    def apply(
        self,
        label_map: LabelMap,
        schema: LabelSchema,
        spacing_mm: Triple,
        rng: np.random.Generator,
    ) -> LabelMap:
        """The edited map.

        Raises:
            InputError: classes without a tumour or a liver, none to move, or a volume that is not
                positive.
            RunError: no room for it.
        """
        if self.volume_mm3 is not None and self.volume_mm3 <= 0:
            raise InputError(
                f"A tumour of {self.volume_mm3:g} mm3 was asked for. Ask for a positive volume."
            )
        if "liver" not in schema:
            raise InputError(
                f"The classes are {list(schema.names)}. Without a liver nobody says where a tumour "
                "may lie, so leave it as it is."
            )
        has_one = bool((label_map == schema.value("tumour")).any())
        if self.move:
            label_map = move_tumour(label_map, schema, spacing_mm, rng)
        if self.volume_mm3 is None:
            return label_map
        if has_one:
            return resize_tumour(label_map, schema, spacing_mm, self.volume_mm3)
        return insert_tumour(label_map, schema, spacing_mm, self.volume_mm3, rng)


def remove_tumour(label_map: LabelMap, schema: LabelSchema, spacing_mm: Triple) -> LabelMap:
    """The map without its tumour, filled in from around."""
    tumour = label_map == schema.value("tumour")
    filled = label_map.copy()
    if not tumour.any():
        return filled
    sigma = FILL_REACH_MM / np.array(spacing_mm)
    # Never with background: the liver keeps its outline, and gets no hole.
    values = [k for k in range(1, len(schema)) if k != schema.value("tumour")]
    around = [ndimage.gaussian_filter((label_map == k).astype(np.float32), sigma) for k in values]
    guess = np.array(values, np.uint8)[np.stack(around).argmax(0)]
    liver = schema.value("liver")
    filled[tumour] = liver
    for k in values:
        if k == liver:
            continue
        trees, _ = ndimage.label(label_map == k, TOUCHING)
        bits, n = ndimage.label(tumour & (guess == k), TOUCHING)
        for bit in range(1, n + 1):
            here = bits == bit
            touched = np.unique(trees[ndimage.binary_dilation(here, TOUCHING)])
            if (touched > 0).sum() == 1:
                filled[here] = k
    return filled


def insert_tumour(
    label_map: LabelMap,
    schema: LabelSchema,
    spacing_mm: Triple,
    volume_mm3: float,
    rng: np.random.Generator,
) -> LabelMap:
    """A tumour of a drawn shape (``draw_shape_mm``) somewhere in the liver of a map that has none.

    Raises:
        InputError: the map has a tumour.
        RunError: no room for it in ``ATTEMPTS`` places.
    """
    tumour = schema.value("tumour")
    if (label_map == tumour).any():
        raise InputError("The label map has a tumour already. Remove it first.")
    depth = draw_shape_mm(_shape(label_map), spacing_mm, volume_mm3, rng)
    return _somewhere(label_map, schema, depth, _voxels(volume_mm3, spacing_mm), rng)


def move_tumour(
    label_map: LabelMap, schema: LabelSchema, spacing_mm: Triple, rng: np.random.Generator
) -> LabelMap:
    """The tumour at another place of the liver, with its shape and volume.

    Raises:
        InputError: there is no tumour.
        RunError: no room for it in ``ATTEMPTS`` places.
    """
    tumour = _required_tumour(label_map, schema)
    left = remove_tumour(label_map, schema, spacing_mm)
    depth = tumour_distance_mm(tumour, spacing_mm)
    return _somewhere(left, schema, depth, int(tumour.sum()), rng)


def shift_tumour(
    label_map: LabelMap, schema: LabelSchema, spacing_mm: Triple, by_mm: Triple
) -> LabelMap:
    """The tumour moved along the map's axes, by whole voxels, with its shape and volume.

    Raises:
        InputError: there is no tumour.
        RunError: there is no room for it where it would be.
    """
    tumour = _required_tumour(label_map, schema)
    left = remove_tumour(label_map, schema, spacing_mm)
    voxels, n = np.rint(np.array(by_mm) / np.array(spacing_mm)), int(tumour.sum())
    if not voxels.any():
        return label_map.copy()
    depth = tumour_distance_mm(tumour, spacing_mm)
    shifted = np.asarray(ndimage.shift(depth, voxels, order=0, mode="nearest"))
    room, most = left == schema.value("liver"), ndimage.label(tumour, TOUCHING)[1]
    # What it loses where it is drawn, next to veins and borders, it may lose elsewhere too.
    slack = _lost(left, depth, depth[tumour].min(), room)
    placed = _place(left, schema, shifted, n, room=room, most_pieces=most, slack=slack)
    # A shape that leaves the map would be made up there from what repeats at its border.
    if placed is None or ndimage.shift(tumour.astype(np.uint8), voxels, order=0).sum() < n:
        raise RunError(
            "The tumour does not fit there: it would lose too much of its shape to veins or the "
            "liver's border. Choose another place, or make it smaller first."
        )
    return placed


def resize_tumour(
    label_map: LabelMap, schema: LabelSchema, spacing_mm: Triple, volume_mm3: float
) -> LabelMap:
    """The tumour at its place, its surface moved until it has this volume, to a voxel.

    Raises:
        InputError: there is no tumour.
        RunError: it would come apart, or lose too much to its surroundings.
    """
    tumour = _required_tumour(label_map, schema)
    n = _voxels(volume_mm3, spacing_mm)
    depth = tumour_distance_mm(tumour, spacing_mm)
    if n <= tumour.sum():
        room, left = tumour, remove_tumour(label_map, schema, spacing_mm)
    else:
        room, left = tumour | (label_map == schema.value("liver")), label_map
    most = ndimage.label(tumour, TOUCHING)[1]
    placed = _place(left, schema, depth, n, room=room, most_pieces=most)
    if placed is None:
        raise RunError(
            f"The tumour cannot have {volume_mm3:.0f} mm3 at its place: it would come apart, or "
            "lose too much of its shape to veins or the liver's border. Ask for another volume."
        )
    return placed


def grow_tumour(
    label_map: LabelMap, schema: LabelSchema, spacing_mm: Triple, by_mm: float
) -> LabelMap:
    """The tumour with its surface moved outwards by so many mm; inwards where negative.

    Raises:
        InputError: there is no tumour, or none would be left.
        RunError: as ``resize_tumour``.
    """
    tumour = _required_tumour(label_map, schema)
    depth = tumour_distance_mm(tumour, spacing_mm)
    room = tumour | (label_map == schema.value("liver"))
    n = int((room & (depth > -by_mm)).sum())
    if n == 0:
        raise InputError(f"Shrunk by {-by_mm:g} mm, nothing of the tumour is left. Shrink it less.")
    return resize_tumour(label_map, schema, spacing_mm, n * float(np.prod(spacing_mm)))


def _somewhere(
    label_map: LabelMap,
    schema: LabelSchema,
    depth: Float[np.ndarray, "x y z"],
    n: int,
    rng: np.random.Generator,
) -> LabelMap:
    """The n deepest voxels of a shape, with its deepest point on a random liver voxel."""
    room = label_map == schema.value("liver")
    places = np.argwhere(room)
    deepest = np.array(np.unravel_index(depth.argmax(), depth.shape))
    for _ in range(ATTEMPTS if len(places) else 0):
        offset = places[rng.integers(len(places))] - deepest
        shifted = np.asarray(ndimage.shift(depth, offset, order=0, mode="nearest"))
        placed = _place(label_map, schema, shifted, n, room=room, most_pieces=1)
        if placed is not None and not _on_border(placed == schema.value("tumour")):
            return placed
    raise RunError(
        f"There was no room for a tumour of {n} voxels at {ATTEMPTS} places of the liver. "
        "Ask for a smaller one or another map."
    )


def _place(
    label_map: LabelMap,
    schema: LabelSchema,
    depth: Float[np.ndarray, "x y z"],
    n: int,
    *,
    room: Bool[np.ndarray, "x y z"],
    most_pieces: int,
    slack: tuple[float, float] = (0.0, 0.0),
) -> LabelMap | None:
    """The n deepest voxels of ``room`` as tumour, or None where they make no good one.

    Args:
        slack: shares that it may lose besides, outside the liver and to other classes.
    """
    inside = np.flatnonzero(room)
    if n > len(inside):
        return None
    chosen = inside[np.argsort(-depth.ravel()[inside], kind="stable")[:n]]
    outside, on_others = _lost(label_map, depth, depth.ravel()[chosen].min(), room)
    if outside > SHARE_OUTSIDE + slack[0] or on_others > SHARE_ON_OTHERS + slack[1]:
        return None
    placed = label_map.copy()
    placed.ravel()[chosen] = schema.value("tumour")
    pieces = ndimage.label(placed == schema.value("tumour"), TOUCHING)[1]
    return placed if pieces <= most_pieces else None


def _lost(
    label_map: LabelMap,
    depth: Float[np.ndarray, "x y z"],
    surface: float,
    room: Bool[np.ndarray, "x y z"],
) -> tuple[float, float]:
    """Shares of a shape, whose surface has this depth, outside the liver and on other classes."""
    whole = depth >= surface
    lost = whole & ~room
    outside = int((lost & (label_map == 0)).sum())
    return outside / int(whole.sum()), (int(lost.sum()) - outside) / int(whole.sum())


def _required_tumour(label_map: LabelMap, schema: LabelSchema) -> Bool[np.ndarray, "x y z"]:
    tumour = label_map == schema.value("tumour")
    if not tumour.any():
        raise InputError("The label map has no tumour to edit. Insert one first.")
    return tumour


def _voxels(volume_mm3: float, spacing_mm: Triple) -> int:
    return max(1, round(volume_mm3 / float(np.prod(spacing_mm))))


def _on_border(mask: Bool[np.ndarray, "x y z"]) -> bool:
    return bool(mask.sum() != mask[1:-1, 1:-1, 1:-1].sum())


def _shape(label_map: LabelMap) -> Shape:
    x, y, z = label_map.shape
    return (x, y, z)
