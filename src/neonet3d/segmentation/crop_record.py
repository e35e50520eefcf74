"""How a patch was cut from its scan: ``crops/<case>.json`` of a cropped cohort.

The record suffices to take a mask that was drawn in the patch back to the scan's own grid; the scan
itself is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    ValidationError,
)

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.geometry import Grid, Window, place_label_map_back
from neonet3d.cohort.layout import SAFE_ID
from neonet3d.cohort.volume import (
    MOST_CLASSES,
    Volume,
    read_label_map,
    require_same_grid,
    write_atomically,
)
from neonet3d.config import Lengths, Sizes
from neonet3d.errors import InputError
from neonet3d.types import LabelMap

Row = tuple[float, float, float, float]
Axis = Annotated[str, Field(pattern="^[LRAPSI]$")]


class CropRecord(BaseModel):
    """How a patch was cut.

    Attributes:
        case: name of the scan in the cohort that was cropped.
        around: what the window holds, a tumour or the whole liver.
        lesion: which of its lesions the window lies over, 1 for the greatest weight; 0 without
            tumour, and around a liver.
        n_lesions: lesions of the minimum volume or more.
        lesion_volume_mm3: of this lesion; 0 without one.
        touches_border: lesion or liver reaches the border of the scan, so it may be cut off.
        fallback: ``liver`` where there is no tumour and the liver's centre was taken; ``scan``
            where a predicted mask shows no liver either and the scan's was.
        scale: by how much the window was widened to hold a large lesion; 1 otherwise.
        first_mm: the patch's first voxel centre, in mm along the scan's RAS+ axes from the scan's.
        shape: of the patch.
        spacing_mm: of the patch.
        scan_shape: of the scan in RAS+.
        scan_affine: of the scan in RAS+, mm.
        scan_axes: on which the scan is stored, such as L, P, S.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    case: str
    around: Literal["tumour", "liver"]
    lesion: NonNegativeInt
    n_lesions: NonNegativeInt
    lesion_volume_mm3: NonNegativeFloat
    touches_border: bool
    fallback: Literal["liver", "scan"] | None
    scale: PositiveFloat
    first_mm: tuple[float, float, float]
    shape: Sizes
    spacing_mm: Lengths
    scan_shape: Sizes
    scan_affine: tuple[Row, Row, Row, Row]
    scan_axes: tuple[Axis, Axis, Axis]

    @property
    def window(self) -> Window:
        """Where the patch lies on the scan."""
        return Window(self.first_mm, Grid(self.shape, self.spacing_mm))

    def empty_scan(self) -> Volume:
        """The scan's grid with background everywhere."""
        background = np.broadcast_to(np.uint8(0), self.scan_shape)
        return Volume(background, np.array(self.scan_affine), user_axes=self.scan_axes)

    def place_back(self, label_map: LabelMap) -> Volume:
        """The inverse map: a mask drawn in the patch, on the scan's own grid.

        Args:
            label_map: (x, y, z) uint8 on the patch's grid; it is background outside.

        Raises:
            InputError: a mask of another shape than the patch.
        """
        if label_map.shape != self.shape:
            raise InputError(
                f"The mask is {label_map.shape} voxels and the patch of {self.case} {self.shape}. "
                "Draw it on the grid of the patch."
            )
        scan, n_classes = self.empty_scan(), int(label_map.max()) + 1
        placed = place_label_map_back(label_map, self.window, scan, n_classes=n_classes)
        return scan.with_data(placed)


RECORD_FIELDS = tuple(CropRecord.model_fields)
"""What a record of this version says; patches with another are cut again."""


def write_record(root: Path, name: str, record: CropRecord) -> None:
    """Write the record of the patch ``name`` into the cohort folder ``root``."""
    text = record.model_dump_json(indent=2) + "\n"
    write_atomically(_path(root, name), text.encode(), durable=False)


def read_record(root: Path, name: str) -> CropRecord | None:
    """The record of a patch; None for a case that TLCR did not cut.

    Raises:
        InputError: a file that is no such record.
    """
    path = _path(root, name)
    if not path.is_file():
        return None
    try:
        return CropRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{path} does not say how the patch was cut "
            f"({'.'.join(map(str, first['loc']))}: {first['msg']}). "
            "Crop the cohort again with 'neonet3d crop'."
        ) from error


def cut_without_tumour(cohort: Cohort) -> list[str]:
    """Names of the patches without a tumour; TLCR shows the middle of the liver or the scan."""
    return [name for name, record in _records(cohort) if record.n_lesions == 0]


def cut_without_liver(cohort: Cohort) -> list[str]:
    """Names of the patches that show the middle of the scan, for want of a liver too."""
    return [name for name, record in _records(cohort) if record.fallback == "scan"]


def place_file_back(crops: Path, name: str, mask: Path, out: Path) -> Volume:
    """Take a mask file that was drawn in a patch back to the scan, and write it.

    Args:
        crops: the cropped cohort.
        name: of the patch in it.
        mask: NIfTI on the patch's grid.
        out: ``.nii`` or ``.nii.gz``; written on the scan's grid and axes.

    Raises:
        InputError: no such patch, a mask that does not lie on it, ``out`` exists or is no NIfTI.
    """
    record = read_record(crops, name) if SAFE_ID.fullmatch(name) else None
    if record is None:
        raise InputError(
            f"{crops} holds no record crops/{name}.json of a patch. Give the folder that "
            "'neonet3d crop' wrote and the name that its participants.tsv lists."
        )
    if not out.name.endswith((".nii", ".nii.gz")) or out.exists():
        what = "exists" if out.exists() else "does not end in .nii or .nii.gz"
        raise InputError(f"{out} {what}. Choose another name for the mask.")
    drawn = read_label_map(mask, n_classes=MOST_CLASSES)
    patch = np.broadcast_to(np.uint8(0), record.shape)
    affine = record.window.affine(record.empty_scan())
    require_same_grid(Volume(patch, affine), drawn, name=name)
    placed = record.place_back(drawn.data)
    placed.write(out)
    return placed


def _records(cohort: Cohort) -> Iterator[tuple[str, CropRecord]]:
    for case in cohort:
        record = read_record(cohort.root, case.name)
        if record is not None:
            yield case.name, record


def _path(root: Path, name: str) -> Path:
    return root / "crops" / f"{name}.json"
