"""What the page of the generator may do to a tumour, and the mask that comes of it.

A mask is always its source with a list of edits, so what is drawn can be told and repeated; there
is no mask that only the page knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import load_label_maps
from neonet3d.config_section import Section
from neonet3d.engine.artefact import ArtefactCard
from neonet3d.errors import InputError
from neonet3d.generation.lesion_edit import (
    grow_tumour,
    insert_tumour,
    remove_tumour,
    shift_tumour,
)
from neonet3d.generation.sample import as_spacing
from neonet3d.types import LabelMap, LabelSchema, Triple

MOST_EDITS = 50
Millimetres = Annotated[float, Field(ge=-200, le=200)]


class Shift(Section):
    """Along x (to the patient's left is negative), y and z."""

    kind: Literal["shift"]
    by_mm: tuple[Millimetres, Millimetres, Millimetres]


class Grow(Section):
    """The surface outwards, or inwards."""

    kind: Literal["grow"]
    by_mm: Millimetres


class Remove(Section):
    kind: Literal["remove"]


class Insert(Section):
    """A tumour of this volume somewhere in the liver; the number chooses shape and place."""

    kind: Literal["insert"]
    volume_ml: float = Field(gt=0, le=1000)
    number: int = Field(ge=0, lt=2**31)


Edit = Annotated[Shift | Grow | Remove | Insert, Field(discriminator="kind")]


class EditedMask(Section):
    """A case of the cohort by its number, from 1, and what is done to its mask."""

    case: int = Field(ge=1)
    edits: tuple[Edit, ...] = Field(max_length=MOST_EDITS)


@dataclass(frozen=True)
class MaskOnGrid:
    """A label map as the generator takes it.

    Attributes:
        log_scale: of its voxels to the grid's (``Patches.log_scale``).
        name: of the case it came from.
        source: hash of that case.
    """

    label_map: LabelMap
    log_scale: Float[Tensor, " 3"]
    spacing_mm: Triple
    name: str
    source: str


def edited_mask(crops: Cohort, card: ArtefactCard, wanted: EditedMask) -> MaskOnGrid:
    """The mask of a case on the generator's grid, with the edits done in their order.

    Raises:
        InputError: no such case, no mask, or an edit that cannot be done.
        RunError: a tumour that does not fit.
    """
    if wanted.case > len(crops):
        raise InputError(f"There are {len(crops)} cases, and no number {wanted.case}.")
    case = crops.cases[wanted.case - 1]
    card.refuse_other_classes(crops.schema)
    maps, scales = load_label_maps(crops.subset([case]), card.grid)
    spacing_mm, label_map = as_spacing(card.grid, scales[0]), maps[0].numpy()
    for edit in wanted.edits:
        label_map = _done(edit, label_map, crops.schema, spacing_mm)
    return MaskOnGrid(label_map, scales[0], spacing_mm, case.name, case.digest())


def _done(
    edit: Shift | Grow | Remove | Insert,
    label_map: LabelMap,
    schema: LabelSchema,
    spacing_mm: Triple,
) -> LabelMap:
    match edit:
        case Shift(by_mm=by_mm):
            return shift_tumour(label_map, schema, spacing_mm, by_mm)
        case Grow(by_mm=by_mm):
            return grow_tumour(label_map, schema, spacing_mm, by_mm)
        case Remove():
            return remove_tumour(label_map, schema, spacing_mm)
        case Insert(volume_ml=volume_ml, number=number):
            rng = np.random.default_rng(number)
            return insert_tumour(label_map, schema, spacing_mm, 1000 * volume_ml, rng)
