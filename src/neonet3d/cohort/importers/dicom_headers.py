"""Headers of a tree of DICOM files: which images there are, and to which series they belong.

An image is a frame: a whole file, or one of the frames of an enhanced multi-frame file, whose place
and scale stand in its functional groups (DICOM PS3.3, C.7.6.16). Pixels are not read here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.misc import is_dicom
from pydicom.uid import MediaStorageDirectoryStorage

from neonet3d.errors import InputError
from neonet3d.types import Advance, Triple, no_advance

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


@dataclass(frozen=True)
class Series:
    """Images that say that they belong together.

    Attributes:
        patient: PatientID; without one, the study's UID; without that, the folder. Never printed
            unless ``--keep-ids`` is given.
        patient_id: PatientID, empty where there is none.
        study, uid, number, description, modality, frame_of_reference: as in the header.
        references: UIDs of the series that a segmentation was drawn on.
        frames: the images, in the order in which the files were found.
    """

    patient: str
    patient_id: str
    study: str
    uid: str
    number: str
    description: str
    modality: str
    frame_of_reference: str
    references: tuple[str, ...]
    frames: tuple[Frame, ...]

    @property
    def has_images(self) -> bool:
        """Whether this could be a scan at all; reports, plans and segmentations could not."""
        return self.modality != "SEG" and any(0 not in frame.size for frame in self.frames)


@dataclass
class _Growing:
    header: Dataset
    patient: str
    frames: list[Frame] = field(default_factory=list)


def list_files(folder: Path) -> list[Path]:
    """All files under a folder in a fixed order, or the file; links to folders are not followed."""
    if folder.is_file():
        return [folder]
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(root) / name for name in sorted(names) if not name.startswith("._")]
    return found


def read_series(
    folder: Path, files: Iterable[Path], *, advance: Advance = no_advance
) -> tuple[list[Series], int]:
    """Read the headers of files and group them.

    Files that are no DICOM are left alone and counted. Images without a SeriesInstanceUID are
    grouped by the folder that they lie in.

    Args:
        folder: root of the tree, or the one file.
        advance: called once per file.

    Returns:
        The series in the order of patient, study, number and UID, and how many files are no DICOM.

    Raises:
        InputError: a header that cannot be read; a ``.dcm`` file that is no DICOM.
    """
    growing: dict[tuple[str, str, str], _Growing] = {}
    others, root = 0, folder.parent if folder.is_file() else folder
    for path in files:
        if not is_dicom(path):
            if path.suffix.lower() == ".dcm":
                raise InputError(
                    f"{path} is no DICOM file: 'DICM' does not stand at byte 128. "
                    "Copy it again from its source, or remove it."
                )
            others += 1
        else:
            header, frames = _read_file(path)
            inside = str(path.parent.relative_to(root))
            study = _text(header, "StudyInstanceUID")
            patient = _text(header, "PatientID") or study or inside
            # A SEG is a mask of its own, even where several share a series.
            alone = str(path) if _text(header, "Modality") == "SEG" else ""
            key = (patient, study, alone or _text(header, "SeriesInstanceUID") or inside)
            growing.setdefault(key, _Growing(header, patient)).frames += frames
        advance()
    series = [_finish(g.patient, g.header, g.frames) for g in growing.values()]
    return sorted(series, key=lambda s: (s.patient, s.study, s.number.zfill(9), s.uid)), others


def _finish(patient: str, header: Dataset, frames: list[Frame]) -> Series:
    references = [
        _text(item, "SeriesInstanceUID") for item in header.get("ReferencedSeriesSequence") or []
    ]
    return Series(
        patient=patient,
        patient_id=_text(header, "PatientID"),
        study=_text(header, "StudyInstanceUID"),
        uid=_text(header, "SeriesInstanceUID"),
        number=_text(header, "SeriesNumber"),
        description=_text(header, "SeriesDescription"),
        modality=_text(header, "Modality"),
        frame_of_reference=_text(header, "FrameOfReferenceUID"),
        references=tuple(references),
        frames=tuple(frames),
    )


def _read_file(path: Path) -> tuple[Dataset, list[Frame]]:
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(KEYWORDS))
        for element in header.iterall():  # values are parsed when they are asked for
            _ = element.value
        frames = _frames(path, header)
    except Exception as error:  # pydicom has many kinds for what can be wrong with a file
        raise InputError(
            f"{path}: the DICOM header cannot be read ({error}). "
            "Copy the file again from its source, or remove it."
        ) from error
    is_index = header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    names_series = "Modality" in header and "SeriesInstanceUID" in header
    if not ("Rows" in header or names_series or is_index):
        raise InputError(
            f"{path}: the DICOM header is cut short; it names no series. "
            "Copy the file again from its source, or remove it."
        )
    return header, frames


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


def _frames(path: Path, header: Dataset) -> list[Frame]:
    """The images of a file; a file without any is one frame with the problem."""
    n = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or []), Dataset())
    problem = _problem(header, n, len(per_frame))
    if problem is not None or not per_frame:
        return [_frame(path, 0, header, lambda keyword: header.get(keyword), problem)]

    def look_up(groups: Dataset, keyword: str) -> Any:
        for sequence, keywords in GROUPS.items():
            if keyword in keywords:
                for place in (groups, shared):
                    for item in place.get(sequence) or []:
                        if item.get(keyword) is not None:
                            return item.get(keyword)
        return header.get(keyword)

    return [
        _frame(path, index, header, lambda keyword, g=groups: look_up(g, keyword), None)
        for index, groups in enumerate(per_frame)
    ]


def _problem(header: Dataset, n_frames: int, n_groups: int) -> str | None:
    if _text(header, "Modality") == "SEG":
        return "a segmentation, not a scan; give its file or folder as --masks"
    if not header.get("Rows") or not header.get("Columns"):
        return "no image (a report, a plan or a presentation state); nothing to import"
    if int(header.get("SamplesPerPixel") or 1) != 1:
        return "a colour picture; only grey images are scans"
    if _text(header, "PhotometricInterpretation") != "MONOCHROME2":
        found = _text(header, "PhotometricInterpretation") or "missing"
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


def _frame(path: Path, index: int, header: Dataset, get: Any, problem: str | None) -> Frame:
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
