"""TLCR: tumour-localised cropping (NeoNet, arXiv:2603.29449; the steps are ours).

A window of fixed size in mm is laid over a lesion and read onto the ROI grid. The masks stay as
they were drawn: closing and small components decide where to look, not what is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from neonet3d.cohort.cohort import Case, Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.geometry import Grid, resample_image, resample_label_map
from neonet3d.cohort.layout import read_participants
from neonet3d.cohort.volume import Volume, require_same_grid
from neonet3d.config import RoiConfig
from neonet3d.errors import InputError
from neonet3d.segmentation.crop_record import CropRecord, write_record
from neonet3d.segmentation.lesions import Lesion, find_lesions
from neonet3d.segmentation.placement import liver_box, liver_centre, window_around
from neonet3d.types import Advance, ImageArray, LabelMap, LabelSchema, no_advance


@dataclass(frozen=True)
class RoiCrop:
    """A region of interest, and how it was cut.

    Attributes:
        image: float32 on the ROI grid; 0 outside the scan.
        label_map: uint8 on the ROI grid; background outside the scan.
        record: where the ROI grid lies on the scan, and over which lesion.
    """

    image: Volume
    label_map: Volume
    record: CropRecord

    def _repr_html_(self) -> str:
        """Image and mask, for notebooks."""
        return self.image._repr_html_() + self.label_map._repr_html_()

    def place_back(self, label_map: LabelMap) -> Volume:
        """The inverse map: a mask drawn in the ROI (x, y, z), on the scan's own grid.

        Raises:
            InputError: a mask of another shape than the ROI.
        """
        return self.record.place_back(label_map)


def crop_to_tumour(
    image: Volume,
    label_map: Volume,
    schema: LabelSchema,
    roi: RoiConfig,
    *,
    tumour_probability: ImageArray | None = None,
    allow_empty: bool = False,
) -> RoiCrop:
    """Cut the region of interest around the index lesion.

    The index lesion is the component with the greatest volume x mean probability. The window holds
    its bounding box and ``roi.margin_mm`` on every side: it is moved to stay inside the scan,
    padded where the scan is smaller, and widened on all axes by one scale where the lesion is
    larger.

    Args:
        image: the scan.
        label_map: its mask, predicted or given, on the same grid.
        schema: classes of the mask; ``tumour``, and ``liver`` for the fallback.
        roi: the ROI grid and the lesion's minimum volume.
        tumour_probability: (x, y, z) of the scan in [0, 1]; 1 for a mask that was drawn.
        allow_empty: take the scan's middle where the mask holds neither tumour nor liver.

    Raises:
        InputError: different grids; neither tumour nor liver in the mask; a probability of another
            shape.
    """
    lesions = _lesions(image, label_map, schema, roi, tumour_probability)
    scan = (image, label_map, schema, roi)
    return _crop_to(lesions, min(1, len(lesions)), *scan, allow_empty=allow_empty)


def crop_to_lesions(
    image: Volume,
    label_map: Volume,
    schema: LabelSchema,
    roi: RoiConfig,
    *,
    tumour_probability: ImageArray | None = None,
    allow_empty: bool = False,
) -> list[RoiCrop]:
    """Cut a region of interest around each lesion, the index lesion first.

    One as ``crop_to_tumour`` cuts it for every component of the minimum volume, by descending
    volume x mean probability; without a tumour just the liver's middle. What a window shows of
    other lesions stays tumour in its mask. Arguments and errors are those of ``crop_to_tumour``.
    """
    lesions = _lesions(image, label_map, schema, roi, tumour_probability)
    numbers = range(1, len(lesions) + 1) if lesions else [0]
    scan = (image, label_map, schema, roi)
    return [_crop_to(lesions, number, *scan, allow_empty=allow_empty) for number in numbers]


def crop_to_liver(
    image: Volume,
    label_map: Volume,
    schema: LabelSchema,
    roi: RoiConfig,
    *,
    allow_empty: bool = False,
) -> RoiCrop:
    """Cut the whole liver with its tumours, and ``roi.margin_mm`` on every side.

    The window is moved, padded and widened as ``crop_to_tumour`` does with a lesion's. Arguments
    and errors are those of ``crop_to_tumour``.
    """
    lesions = _lesions(image, label_map, schema, roi, None)
    scan = (image, label_map, schema, roi)
    return _crop_to(lesions, 0, *scan, allow_empty=allow_empty, around="liver")


def crop_cohort(
    cohort: Cohort,
    out: Path,
    roi: RoiConfig,
    advance: Advance = no_advance,
    *,
    all_lesions: bool = False,
    tumour_probability: Callable[[Case], ImageArray | None] | None = None,
    allow_empty: bool = False,
) -> Cohort:
    """Cut every case of a cohort around ``roi.around``; ``crops/<case>.json`` says how.

    Participants, outcomes, split and further columns are kept, so that folds keep the patches of a
    patient together.

    Args:
        all_lesions: one patch per lesion, ``<case>-1``, ``<case>-2`` and so on, the index lesion
            first; otherwise one patch per case, under its name.
        tumour_probability: of a case, on the grid of its scan in RAS+; without it (or where it
            gives None) lesions weigh by their volume alone.
        allow_empty: for masks that were predicted: one with neither tumour nor liver gives the
            scan's middle. A mask that was drawn and is empty is a fault of the cohort.

    Raises:
        InputError: a case without a mask, or with neither tumour nor liver; ``out`` not empty;
            one patch per lesion around livers.
    """
    if all_lesions and roi.around == "liver":
        raise InputError(
            "One patch per lesion needs windows around tumours, and roi.around is liver. Leave "
            "--all-lesions out, or say --set roi.around=tumour."
        )
    kept = ("case", "participant_id", cohort.outcome_name)
    further = {
        row["case"]: {
            str(column): value
            for column, value in row.items()
            if column not in kept and isinstance(value, str)
        }
        for row in read_participants(cohort.root, cohort.outcome_name).to_dict("records")
    }
    with new_folder(out) as folder:
        writer = CohortWriter(
            folder,
            cohort.schema,
            outcome_name=cohort.outcome_name,
            channel=cohort.channel,
            durable=False,
        )
        for case in cohort:
            scan = (*case.read_with_mask(), cohort.schema, roi)
            weights = tumour_probability(case) if tumour_probability else None
            if roi.around == "liver":
                crops = [crop_to_liver(*scan, allow_empty=allow_empty)]
            elif all_lesions:
                crops = crop_to_lesions(*scan, tumour_probability=weights, allow_empty=allow_empty)
            else:
                crops = [crop_to_tumour(*scan, tumour_probability=weights, allow_empty=allow_empty)]
            for number, crop in enumerate(crops, start=1):
                name = f"{case.name}-{number}" if all_lesions else case.name
                writer.add(
                    name,
                    crop.image,
                    crop.label_map,
                    outcome=case.outcome,
                    participant=case.participant,
                    extra=further[case.name],
                )
                write_record(folder, name, crop.record.model_copy(update={"case": case.name}))
            advance(note=case.name)
        writer.finish({"roi": roi.model_dump(mode="json")})
    return Cohort.open(out)


def _lesions(
    image: Volume,
    label_map: Volume,
    schema: LabelSchema,
    roi: RoiConfig,
    tumour_probability: ImageArray | None,
) -> list[Lesion]:
    require_same_grid(image, label_map, name=_name(image))
    return find_lesions(
        label_map,
        schema,
        minimum_volume_mm3=roi.minimum_volume_mm3,
        tumour_probability=tumour_probability,
    )


def _crop_to(
    lesions: list[Lesion],
    number: int,
    image: Volume,
    label_map: Volume,
    schema: LabelSchema,
    roi: RoiConfig,
    *,
    allow_empty: bool,
    around: Literal["tumour", "liver"] = "tumour",
) -> RoiCrop:
    """The window over lesion ``number`` (from 1); for 0 over the whole liver, or its middle."""
    lesion = lesions[number - 1] if number else None
    box = (lesion.first, lesion.last) if lesion else None
    if around == "liver":
        box = liver_box(label_map, schema)
    spacing_mm = np.array(image.spacing_mm)
    fallback: Literal["liver", "scan"] | None = None
    touches_border = False
    if box is None:
        centre = liver_centre(label_map, schema)
        fallback = "scan" if centre is None else "liver"
        if centre is None and not allow_empty:
            raise InputError(
                f"{_name(label_map)}: the mask holds neither tumour nor liver, so there is nowhere "
                f"to crop (its classes are {list(schema.names)}). Segment the scan first or leave "
                "it out."
            )
        middle = (np.array(image.shape) - 1) / 2
        low_mm = high_mm = (middle if centre is None else centre) * spacing_mm
    else:
        first, last = box
        low_mm = (first - 0.5) * spacing_mm - roi.margin_mm
        high_mm = (last + 0.5) * spacing_mm + roi.margin_mm
        touches_border = bool(((first == 0) | (last == np.array(image.shape) - 1)).any())
    narrow = Grid(roi.shape, roi.spacing_mm)
    scale = max(1.0, float(((high_mm - low_mm) / narrow.extent_mm).max()))
    x, y, z = (np.array(roi.spacing_mm) * scale).tolist()
    window = window_around(low_mm, high_mm, image, Grid(roi.shape, (x, y, z)))
    affine = window.affine(image)
    masks = resample_label_map(label_map, window, n_classes=len(schema))
    record = CropRecord(
        case=_name(image),
        around=around,
        lesion=number,
        n_lesions=len(lesions),
        lesion_volume_mm3=lesion.volume_mm3 if lesion else 0.0,
        touches_border=touches_border,
        fallback=fallback,
        scale=scale,
        first_mm=window.first_mm,
        shape=window.grid.shape,
        spacing_mm=window.grid.spacing_mm,
        scan_shape=image.shape,
        scan_affine=image.affine.tolist(),
        scan_axes=image.user_axes,
    )
    return RoiCrop(
        image=Volume(resample_image(image, window), affine, image.source, image.user_axes),
        label_map=Volume(masks, affine, label_map.source, image.user_axes),
        record=record,
    )


def _name(volume: Volume) -> str:
    return volume.source.name if volume.source else "The scan"
