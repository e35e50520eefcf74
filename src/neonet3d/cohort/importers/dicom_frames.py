"""The images of one DICOM file: where each lies, how it is scaled, or why it cannot be used.

An image is a frame: a whole file, or one of the frames of an enhanced multi-frame file, whose place
and scale stand in its functional groups (DICOM PS3.3, C.7.6.16). Pixels are not read here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from neonet3d.types import Triple

# What can tell apart two images at one place, from the most to the least telling.
PHASE_KEYWORDS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoTime",
    "EffectiveEchoTime",
    "InversionTime",
    "FlipAngle",
    "DiffusionBValue",
    "TriggerTime",
    "AcquisitionNumber",
    "ImageType",
    "AcquisitionTime",
    "ContentTime",
)
# Functional groups, and what of each is looked for.
GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameContentSequence": ("TemporalPositionIndex",),
    "MREchoSequence": ("EffectiveEchoTime",),
    "MRDiffusionSequence": ("DiffusionBValue",),
    "MRTimingAndRelatedParametersSequence": ("FlipAngle",),
}
KEYWORDS = (
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "SeriesNumber",
    "Modality",
    "FrameOfReferenceUID",
    "ReferencedSeriesSequence",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *PHASE_KEYWORDS,
)


@dataclass(frozen=True)
class Frame:
    """One image: where its pixels are and what its header says of them.

    Attributes:
        path: the file.
        index: number of the frame in the file, from 0.
        position_mm: centre of the first pixel in the patient, LPS; None where it is not said.
        orientation: direction cosines of rows and columns, LPS.
        spacing_mm: between rows, between columns.
        size: rows, columns.
        slope, intercept: grey value = stored value x slope + intercept.
        phase: those of ``PHASE_KEYWORDS`` that the header has.
        transfer_syntax: UID of the encoding.
        problem: why this image cannot be part of a volume, and what to do; None where it can.
    """

    path: Path
    index: int
    position_mm: Triple | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, float] | None
    size: tuple[int, int]
    slope: float
    intercept: float
    phase: Mapping[str, str]
    transfer_syntax: str
    problem: str | None


def text_of(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """The images of a file; a file without any is one frame with the problem."""
    n = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or []), Dataset())
    problem = _problem(header, n, len(per_frame))
    if problem is not None or not per_frame:
        return [_frame(path, 0, header, header.get, problem)]

    return [
        _frame(path, index, header, partial(_look_up, groups, shared, header), None)
        for index, groups in enumerate(per_frame)
    ]


def _look_up(groups: Dataset, shared: Dataset, header: Dataset, keyword: str) -> Any:
    """A value of one frame: its own, else the one that all share, else the file's."""
    for sequence, keywords in GROUPS.items():
        if keyword in keywords:
            for place in (groups, shared):
                for item in place.get(sequence) or []:
                    if item.get(keyword) is not None:
                        return item.get(keyword)
    return header.get(keyword)


def _problem(header: Dataset, n_frames: int, n_groups: int) -> str | None:
    if text_of(header, "Modality") == "SEG":
        return "a segmentation, not a scan; give its file or folder as --masks"
    if not header.get("Rows") or not header.get("Columns"):
        return "no image (a report, a plan or a presentation state); nothing to import"
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return "a colour picture; only grey images are scans"
    if text_of(header, "PhotometricInterpretation") != "MONOCHROME2":
        found = text_of(header, "PhotometricInterpretation") or "missing"
        return f"PhotometricInterpretation is {found}, not MONOCHROME2; export grey images"
    if header.get("ModalityLUTSequence"):
        return "grey values go through a table (Modality LUT), which is not read; export without it"
    if n_groups not in (0, n_frames):
        return f"{n_frames} frames but {n_groups} functional groups; export the series again"
    if n_frames > 1 and not n_groups:
        return (
            f"{n_frames} frames in one file that does not say where each lies (no functional "
            "groups); export the series as single slices or as enhanced MR"
        )
    return None


def _frame(
    path: Path, index: int, header: Dataset, get: Callable[[str], Any], problem: str | None
) -> Frame:
    phase = {keyword: str(get(keyword)) for keyword in PHASE_KEYWORDS if get(keyword) is not None}
    position = _numbers(get("ImagePositionPatient"), 3)
    spacing = _numbers(get("PixelSpacing"), 2)
    slope, intercept = get("RescaleSlope"), get("RescaleIntercept")
    return Frame(
        path=path,
        index=index,
        position_mm=None if position is None else (position[0], position[1], position[2]),
        orientation=_numbers(get("ImageOrientationPatient"), 6),
        spacing_mm=None if spacing is None else (spacing[0], spacing[1]),
        size=(int(header.get("Rows") or 0), int(header.get("Columns") or 0)),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
        phase=phase,
        transfer_syntax=str(header.file_meta.get("TransferSyntaxUID", "")),
        problem=problem,
    )


def _numbers(value: Any, n: int) -> tuple[float, ...] | None:
    if value is None or isinstance(value, str | int | float) or len(value) != n:
        return None
    return tuple(float(v) for v in value)
