"""TLCR: tumour-localised cropping (NeoNet, arXiv:2603.29449; the steps are ours).

A window of fixed size in mm is laid over the index lesion and read onto the ROI grid. The masks
stay as they were drawn: closing and small components decide where to look, not what is seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.geometry import (
    Grid,
    Window,
    place_label_map_back,
    resample_image,
    resample_label_map,
)
from neonet3d.cohort.layout import read_participants
from neonet3d.cohort.volume import (
    GRID_TOLERANCE_MM,
    Volume,
    corner_distance_mm,
    require_same_grid,
    write_atomically,
)
from neonet3d.config import RoiConfig
from neonet3d.errors import InputError
from neonet3d.types import Advance, ImageArray, LabelMap, LabelSchema, no_advance

TOUCHING = ndimage.generate_binary_structure(3, 3)  # voxels that share a corner are one lesion


@dataclass(frozen=True)
class RoiCrop:
    """A region of interest, and how it was cut.

    Attributes:
        image: float32 on the ROI grid; 0 outside the scan.
        label_map: uint8 on the ROI grid; background outside the scan.
        window: where the ROI grid lies on the scan.
        scale: by how much the window was widened to hold a large lesion; 1 otherwise.
        fallback: ``"liver"`` when there is no tumour and the liver's centre was taken.
        n_lesions: components of the minimum volume or more.
        index_lesion_volume_mm3: of the lesion that the window was laid over; 0 without tumour.
        touches_border: the index lesion reaches the border of the scan, so it may be cut off.
    """

    image: Volume
    label_map: Volume
    window: Window
    scale: float
    fallback: str | None
    n_lesions: int
    index_lesion_volume_mm3: float
    touches_border: bool

    def record(self) -> dict[str, object]:
        """All but the voxels, for a JSON file."""
        return {
            "first_mm": list(self.window.first_mm),
            "shape": list(self.window.grid.shape),
            "spacing_mm": list(self.window.grid.spacing_mm),
            "scale": self.scale,
            "fallback": self.fallback,
            "n_lesions": self.n_lesions,
            "index_lesion_volume_mm3": self.index_lesion_volume_mm3,
            "touches_border": self.touches_border,
        }

    def place_back(self, label_map: LabelMap, target: Volume) -> Volume:
        """The inverse map: a mask drawn in the ROI, on the scan's own grid.

        Args:
            label_map: (x, y, z) on the ROI grid.
            target: the scan that the ROI was cut from; voxels outside the window are background.

        Raises:
            InputError: when the ROI was not cut from ``target``.
        """
        expected = Volume(self.image.data, self.window.affine(target))
        if corner_distance_mm(expected, self.image) > GRID_TOLERANCE_MM:
            raise InputError(
                f"{_name(target)} is not the scan that this ROI was cut from (corners lie "
                f"{corner_distance_mm(expected, self.image):.3g} mm apart). Give the original scan."
            )
        n_classes = int(label_map.max()) + 1
        return target.with_data(
            place_label_map_back(label_map, self.window, target, n_classes=n_classes)
        )


def crop_to_tumour(
    image: Volume,
    label_map: Volume,
    schema: LabelSchema,
    roi: RoiConfig,
    *,
    tumour_probability: ImageArray | None = None,
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

    Raises:
        InputError: different grids; neither tumour nor liver in the mask.
    """
    require_same_grid(image, label_map, name=_name(image))
    lesions = _lesions(label_map, schema, roi.minimum_volume_mm3, tumour_probability)
    if lesions:
        index = max(lesions, key=lambda lesion: lesion.weight)
        centre = (index.first + index.last) / 2
        size_mm = (index.last - index.first + 1) * np.array(image.spacing_mm)
        window_mm = Grid(roi.shape, roi.spacing_mm).extent_mm
        scale = max(1.0, float(((size_mm + 2 * roi.margin_mm) / window_mm).max()))
        at_border = (index.first == 0) | (index.last == np.array(image.shape) - 1)
    else:
        centre, scale = _liver_centre(label_map, schema), 1.0
    x, y, z = (np.array(roi.spacing_mm) * scale).tolist()
    window = _window_inside(image, Grid(roi.shape, (x, y, z)), centre)
    affine = window.affine(image)
    masks = resample_label_map(label_map, window, n_classes=len(schema))
    return RoiCrop(
        image=Volume(resample_image(image, window), affine, image.source, image.user_axes),
        label_map=Volume(masks, affine, label_map.source, image.user_axes),
        window=window,
        scale=scale,
        fallback=None if lesions else "liver",
        n_lesions=len(lesions),
        index_lesion_volume_mm3=index.volume_mm3 if lesions else 0.0,
        touches_border=bool(at_border.any()) if lesions else False,
    )


def crop_cohort(cohort: Cohort, out: Path, roi: RoiConfig, advance: Advance = no_advance) -> Cohort:
    """Cut every case of a cohort; ``crops/<case>.json`` says how.

    Participants, outcomes, split and further columns are kept.

    Raises:
        InputError: a case without a mask, or with neither tumour nor liver; ``out`` not empty.
    """
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
            image, label_map = case.read_with_mask()
            crop = crop_to_tumour(image, label_map, cohort.schema, roi)
            writer.add(
                case.name,
                crop.image,
                crop.label_map,
                outcome=case.outcome,
                participant=case.participant,
                extra=further[case.name],
            )
            record = json.dumps(crop.record(), indent=2) + "\n"
            path = folder / "crops" / f"{case.name}.json"
            write_atomically(path, record.encode(), durable=False)
            advance(note=case.name)
        writer.finish({"roi": roi.model_dump(mode="json")})
    return Cohort.open(out)


@dataclass(frozen=True)
class _Lesion:
    """A component of the tumour: its bounding box in voxels, and volume x mean probability."""

    first: Int[np.ndarray, " 3"]
    last: Int[np.ndarray, " 3"]
    volume_mm3: float
    weight: float


def _lesions(
    label_map: Volume,
    schema: LabelSchema,
    minimum_volume_mm3: float,
    tumour_probability: ImageArray | None,
) -> list[_Lesion]:
    """Components after closing by one voxel; those under the minimum go, but never all of them."""
    if "tumour" not in schema:
        return []
    tumour = label_map.data == schema.value("tumour")
    probability = np.ones(label_map.shape) if tumour_probability is None else tumour_probability
    # Padded, or closing would eat what lies at the border of the scan.
    closed = ndimage.binary_closing(np.pad(tumour, 1))[1:-1, 1:-1, 1:-1]
    components, n = ndimage.label(closed, TOUCHING)
    voxels = np.bincount(components.ravel(), minlength=n + 1)[1:]
    weights = ndimage.sum_labels(probability, components, range(1, n + 1))
    lesions = [
        _Lesion(
            first=np.array([axis.start for axis in box]),
            last=np.array([axis.stop for axis in box]) - 1,
            volume_mm3=float(count) * label_map.voxel_volume_mm3,
            weight=float(weight),
        )
        for box, count, weight in zip(
            ndimage.find_objects(components), voxels, weights, strict=True
        )
    ]
    large = [lesion for lesion in lesions if lesion.volume_mm3 >= minimum_volume_mm3]
    if large or not lesions:
        return large
    return [max(lesions, key=lambda lesion: lesion.volume_mm3)]


def _liver_centre(label_map: Volume, schema: LabelSchema) -> Float[np.ndarray, " 3"]:
    if "liver" not in schema or not (liver := label_map.data == schema.value("liver")).any():
        raise InputError(
            f"{_name(label_map)}: the mask holds neither tumour nor liver, so there is nowhere to "
            f"crop (its classes are {list(schema.names)}). Segment the scan first or leave it out."
        )
    return np.argwhere(liver).mean(0)


def _window_inside(source: Volume, grid: Grid, centre_voxel: np.ndarray) -> Window:
    """The grid centred on a voxel, then moved: inside the scan, or around it where it is larger."""
    spacing_mm = np.array(source.spacing_mm)
    start_mm = centre_voxel * spacing_mm - grid.extent_mm / 2
    low_mm = -spacing_mm / 2
    high_mm = low_mm + np.array(source.shape) * spacing_mm - grid.extent_mm
    start_mm = np.clip(start_mm, np.minimum(low_mm, high_mm), np.maximum(low_mm, high_mm))
    x, y, z = (start_mm + np.array(grid.spacing_mm) / 2).tolist()
    return Window((x, y, z), grid)


def _name(volume: Volume) -> str:
    return volume.source.name if volume.source else "The scan"
