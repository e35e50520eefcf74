"""Masks that come beside DICOM scans: DICOM SEG, or NIfTI that lies right in the patient.

A mask is laid on its scan by world coordinates, never by index: its grid may be another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np

from neonet3d.cohort.importers.classes import EXAMPLE, ClassMap, keep_classes
from neonet3d.cohort.importers.dicom_headers import Series, list_files, read_series
from neonet3d.cohort.importers.dicom_stack import LPS_TO_RAS
from neonet3d.cohort.importers.nifti import describe_values, nifti_files
from neonet3d.cohort.regrid import draw_on_grid
from neonet3d.cohort.volume import (
    GRID_TOLERANCE_MM,
    Volume,
    corner_distance_mm,
    read_mask_values,
    to_canonical,
)
from neonet3d.errors import InputError
from neonet3d.types import Affine


@dataclass(frozen=True)
class MaskFile:
    """The file of a mask; a DICOM SEG, or else a NIfTI."""

    path: Path
    is_seg: bool


def find_masks(masks: Path, scans: Mapping[str, Series]) -> dict[str, MaskFile]:
    """Which mask belongs to which scan.

    A SEG belongs to the scan whose series it references; without one, to the scan of the same
    patient (or the only scan) in the same frame of reference. A NIfTI belongs to the scan whose
    PatientID (or series UID) is its name; a single file belongs to a single scan whatever its name.

    Args:
        masks: a file, or a folder of files (SEG at any depth).
        scans: the chosen series of each case.

    Raises:
        InputError: no mask, two for one scan, a NIfTI whose name is no scan's.
    """
    if not masks.exists():
        raise InputError(f"There is no {masks}. Check '--masks'.")
    series, _ = read_series(masks, list_files(masks))
    segs = [entry for entry in series if entry.modality == "SEG"]
    segs.sort(key=lambda seg: seg.frames[0].path)
    niftis = nifti_files(masks)
    if not segs and not niftis:
        raise InputError(f"{masks} holds no DICOM SEG and no NIfTI file. Check '--masks'.")
    if segs and niftis:
        raise InputError(
            f"{masks} holds DICOM SEG and NIfTI files. Keep the masks in one of the two forms."
        )
    found: dict[str, MaskFile] = {}
    if len(scans) == len(niftis) == 1:
        return {next(iter(scans)): MaskFile(next(iter(niftis.values())), is_seg=False)}
    by_name = {name: case for case, scan in scans.items() for name in (scan.patient, scan.uid)}
    for name, path in niftis.items():
        if name not in by_name:
            raise InputError(
                f"{path} has the name of no scan. Name the masks by PatientID, such as "
                "<PatientID>.nii.gz, or by SeriesInstanceUID."
            )
        _add(found, by_name[name], MaskFile(path, is_seg=False))
    for case, scan in scans.items():
        referencing = [seg for seg in segs if scan.uid and scan.uid in seg.references]
        beside = [
            seg
            for seg in segs
            if (seg.patient == scan.patient or len(scans) == 1)
            and scan.frame_of_reference
            and seg.frame_of_reference == scan.frame_of_reference
        ]
        for seg in referencing or beside:
            for frame in seg.frames:
                _add(found, case, MaskFile(frame.path, is_seg=True))
    if not found:
        raise InputError(
            f"None of the {len(segs)} DICOM SEG of {masks} references a chosen series or shares "
            "its patient and frame of reference. Choose the series that they were drawn on."
        )
    return found


def _add(found: dict[str, MaskFile], case: str, mask: MaskFile) -> None:
    if case in found:
        raise InputError(
            f"{case}: two masks, {found[case].path} and {mask.path}. Keep the one that counts."
        )
    found[case] = mask


def read_mask(mask: MaskFile, image: Volume, class_map: ClassMap, *, name: str) -> Volume:
    """A mask with the cohort's classes on the grid of its scan.

    Raises:
        InputError: a damaged file, a fractional SEG, a mask outside the scan.
    """
    schema = class_map.schema
    if mask.is_seg:
        drawn = _read_seg(mask.path, class_map, name)
    else:
        values = class_map.values(None, where=f"{name} (NIfTI)")
        drawn = keep_classes(read_mask_values(mask.path, name=name), values)
    if drawn.shape == image.shape and corner_distance_mm(drawn, image) <= GRID_TOLERANCE_MM:
        return image.with_data(drawn.data)
    return image.with_data(draw_on_grid(drawn, image, n_classes=len(schema), name=name))


def describe_masks(masks: Iterable[MaskFile]) -> str:
    """The sentence that asks for ``--label-map``: segments or values, and their voxels."""
    listed = list(masks)
    if not all(mask.is_seg for mask in listed):
        return describe_values(mask.path for mask in listed)
    counts: dict[str, int] = {}
    for mask in listed:
        seg = _open_seg(mask.path, mask.path.name)
        numbers = _segments(seg)
        array, _ = _voxels(seg, list(numbers.values()), mask.path.name)
        for index, (label, number) in enumerate(numbers.items()):
            key = f"{number} {label!r}"
            counts[key] = counts.get(key, 0) + int(array[..., index].sum())
    held = ", ".join(f"{key} ({voxels} voxels)" for key, voxels in counts.items())
    return (
        f"The DICOM SEG ({len(listed)} files) hold segments that no class is named for: {held}. "
        f"Say which to keep, by number or label: {EXAMPLE}."
    )


def _read_seg(path: Path, class_map: ClassMap, name: str) -> Volume:
    """Segments in the order of the map: where two overlap, the later one is drawn over."""
    seg = _open_seg(path, name)
    by_label, schema = _segments(seg), class_map.schema
    wanted = []
    for class_name, origin in class_map.entries:
        number = int(origin) if origin.isdecimal() else by_label.get(origin)
        if number is not None and number in by_label.values():
            wanted.append((number, schema.value(class_name)))
    if not wanted:
        raise InputError(
            f"{name}: {path} has none of the segments of --label-map; it has "
            f"{ {number: label for label, number in by_label.items()} }. Mend --label-map."
        )
    array, affine = _voxels(seg, [number for number, _ in wanted], name)
    drawn = np.zeros(array.shape[:3], dtype=np.uint8)
    for index, (_, value) in enumerate(wanted):
        drawn[array[..., index] > 0] = value
    return to_canonical(drawn, affine, source=path)


def _open_seg(path: Path, name: str) -> hd.seg.Segmentation:
    try:
        seg = hd.seg.segread(path)
    except Exception as error:  # pydicom and highdicom have many kinds for a file that is wrong
        raise InputError(
            f"{name}: {path} is no whole DICOM SEG ({error}). Export the segmentation again."
        ) from error
    if seg.segmentation_type == hd.seg.SegmentationTypeValues.FRACTIONAL:
        raise InputError(
            f"{name}: {path} is a FRACTIONAL segmentation, which has no border. "
            "Export it as BINARY or LABELMAP."
        )
    return seg


def _segments(seg: hd.seg.Segmentation) -> dict[str, int]:
    """Numbers of the segments by label; a label that is used twice stands with its number."""
    found: dict[str, int] = {}
    for number in seg.segment_numbers:
        if number:  # 0 is the background of a LABELMAP
            label = str(seg.get_segment_description(number).segment_label)
            found[f"{label} ({number})" if label in found else label] = int(number)
    return found


def _voxels(seg: hd.seg.Segmentation, numbers: list[int], name: str) -> tuple[np.ndarray, Affine]:
    """Array (slice, row, column, segment) of 0 and 1, and its affine in RAS+."""
    try:
        volume = seg.get_volume(segment_numbers=numbers, combine_segments=False, dtype=np.uint8)
    except Exception as error:
        raise InputError(
            f"{name}: the segmentation makes no regular block ({error}). "
            "Export it with every slice, on the slices of its series."
        ) from error
    return volume.array, LPS_TO_RAS @ volume.affine
