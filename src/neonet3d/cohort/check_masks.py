"""Masks that can be read but may not be meant: empty, misplaced, cut off, in several pieces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from neonet3d.cohort.case import Case
from neonet3d.cohort.findings import Finding
from neonet3d.cohort.volume import Volume

TOUCHING = ndimage.generate_binary_structure(3, 3)  # 26 neighbours
SIDES = (("left", "right"), ("back", "front"), ("foot", "head"))  # of RAS+ axes
LISTED = 5  # tumours whose volume is written out


def check_mask(case: Case, mask: Volume) -> Iterator[Finding]:
    """What a mask says of a liver and its tumours that a person should look at."""
    if len(case.schema) > 1 and not mask.data.any():
        yield Finding(
            case.name, "warning", "the mask is empty", "Draw it, or remove the file from labelsTr."
        )
        return
    if "tumour" not in case.schema:
        return
    tumour = mask.data == case.schema.value("tumour")
    if not tumour.any():
        yield Finding(
            case.name,
            "warning",
            "there is no tumour in the mask, so a crop falls back to the liver",
            "Draw the tumour, or leave the case out of classification.",
        )
        return
    pieces, n = ndimage.label(tumour, TOUCHING)
    yield from _check_number(case, pieces, n, mask.voxel_volume_mm3)
    if "liver" in case.schema:
        liver = mask.data == case.schema.value("liver")
        yield from _check_place(case, pieces, liver, mask.voxel_volume_mm3)
    yield from _check_border(case, tumour)


def _check_number(case: Case, pieces: np.ndarray, n: int, voxel_mm3: float) -> Iterator[Finding]:
    if n < 2:
        return
    volumes = np.sort(np.bincount(pieces.ravel())[1:])[::-1] * voxel_mm3 / 1000
    listed = ", ".join(f"{volume:.3g}" for volume in volumes[:LISTED])
    more = f" and {n - LISTED} smaller" if n > LISTED else ""
    yield Finding(
        case.name,
        "note",
        f"the mask holds {n} tumours, of {listed} mL{more}",
        "Nothing, if they are meant: a crop shows the greatest and says so. Erase stray voxels.",
    )


def _check_place(
    case: Case, pieces: np.ndarray, liver: Bool[np.ndarray, "x y z"], voxel_mm3: float
) -> Iterator[Finding]:
    outside = []
    for value, box in enumerate(ndimage.find_objects(pieces), start=1):
        wider = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        piece = pieces[wider] == value
        if not (ndimage.binary_dilation(piece, TOUCHING) & liver[wider]).any():
            outside.append(piece.sum() * voxel_mm3 / 1000)
    if not outside:
        return
    n, verb = int(pieces.max()), "does" if len(outside) == 1 else "do"
    yield Finding(
        case.name,
        "warning",
        "no tumour voxel touches the liver"
        if len(outside) == n
        else f"{len(outside)} of {n} tumours ({sum(outside):.3g} mL) {verb} not touch the liver",
        "Look at the mask; are the classes in dataset.json in the right order?",
    )


def _check_border(case: Case, tumour: Bool[np.ndarray, "x y z"]) -> Iterator[Finding]:
    touched = []
    for axis, names in enumerate(SIDES):
        for name, index in zip(names, (0, -1), strict=True):
            voxels = int(np.take(tumour, index, axis=axis).sum())
            if voxels:
                touched.append(f"{name} ({voxels} voxels)")
    if touched:
        yield Finding(
            case.name,
            "warning",
            f"the tumour reaches the border of the scan: {', '.join(touched)}",
            "It may be cut off, so its volume is a lower bound; use a scan that shows all of it.",
        )
