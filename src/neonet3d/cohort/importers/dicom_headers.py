"""Headers of a tree of DICOM files: which series there are, and what belongs to them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.misc import is_dicom
from pydicom.uid import MediaStorageDirectoryStorage

from neonet3d.cohort.importers.dicom_frames import KEYWORDS, Frame, frames_of, text_of
from neonet3d.errors import InputError
from neonet3d.types import Advance, no_advance


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
    """All files under a folder in a fixed order, or the file; links to folders are not followed.

    Raises:
        InputError: a link to nothing, as archives leave them for files that were not fetched.
    """
    if folder.is_file():
        return [folder]
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(root) / name for name in sorted(names) if not name.startswith("._")]
    for path in found:
        if not path.is_file():
            raise InputError(
                f"{path} is a link to a file that is not there, or no file. "
                "Fetch what it stands for, or remove it."
            )
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
            study = text_of(header, "StudyInstanceUID")
            patient = text_of(header, "PatientID") or study or inside
            # A SEG is a mask of its own, even where several share a series.
            alone = str(path) if text_of(header, "Modality") == "SEG" else ""
            key = (patient, study, alone or text_of(header, "SeriesInstanceUID") or inside)
            growing.setdefault(key, _Growing(header, patient)).frames += frames
        advance()
    series = [_finish(g.patient, g.header, g.frames) for g in growing.values()]
    return sorted(series, key=lambda s: (s.patient, s.study, s.number.zfill(9), s.uid)), others


def _finish(patient: str, header: Dataset, frames: list[Frame]) -> Series:
    references = [
        text_of(item, "SeriesInstanceUID") for item in header.get("ReferencedSeriesSequence") or []
    ]
    return Series(
        patient=patient,
        patient_id=text_of(header, "PatientID"),
        study=text_of(header, "StudyInstanceUID"),
        uid=text_of(header, "SeriesInstanceUID"),
        number=text_of(header, "SeriesNumber"),
        description=text_of(header, "SeriesDescription"),
        modality=text_of(header, "Modality"),
        frame_of_reference=text_of(header, "FrameOfReferenceUID"),
        references=tuple(references),
        frames=tuple(frames),
    )


def _read_file(path: Path) -> tuple[Dataset, list[Frame]]:
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(KEYWORDS))
        for element in header.iterall():  # values are parsed when they are asked for
            _ = element.value
        frames = frames_of(path, header)
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
