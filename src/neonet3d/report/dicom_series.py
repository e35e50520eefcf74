"""The series that a DICOM object is written for: its headers, and masks in its own slices."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import UInt8
from nibabel import orientations
from pydicom import dcmread
from pydicom.dataset import Dataset

from neonet3d.cohort.importers.dicom import choose_series, list_series
from neonet3d.cohort.importers.dicom_pixels import read_stack
from neonet3d.cohort.importers.dicom_stack import Stack
from neonet3d.cohort.regrid import draw_on_grid
from neonet3d.cohort.volume import GRID_TOLERANCE_MM, Volume, corner_distance_mm, to_canonical
from neonet3d.errors import InputError
from neonet3d.report.dicom_terms import PROCEDURES
from neonet3d.types import LabelSchema

NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# Tags that may be empty but not absent (type 2), which de-identified series often lack.
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "SliceThickness",
)
MOST_LOST = 0.1  # of a class's volume, on another grid
ALIKE = 0.999  # correlation of a scan with itself, rounded and scaled otherwise


@dataclass(frozen=True)
class SourceSeries:
    """One series of one patient.

    Attributes:
        stack: its slices in order, and where they lie.
        headers: a dataset for each file, without pixels, in the order of the stack.
    """

    stack: Stack
    headers: tuple[Dataset, ...]

    @classmethod
    def open(cls, folder: Path, series: str | None = None) -> SourceSeries:
        """Read the headers of a series.

        Args:
            series: chooses one where the folder holds several (``choose_series``).

        Raises:
            InputError: no usable series, several, or several patients; a series without UIDs, in
                several multi-frame files, or neither MR nor CT.
        """
        listed, _ = list_series(folder)
        chosen = choose_series(listed, series)
        if len(chosen) != 1:
            raise InputError(
                f"{folder} holds scans of {len(chosen)} patients, and an object is of one. "
                "Give the folder of one patient."
            )
        stack = chosen[0].stack
        assert stack is not None  # ``choose_series`` leaves out what has none
        paths = list(dict.fromkeys(frame.path for frame in stack.frames))
        headers = tuple(dcmread(path, stop_before_pixels=True) for path in paths)
        if 1 < len(headers) < len(stack.frames):
            raise InputError(
                f"{folder} spreads the series over {len(headers)} multi-frame files, which objects "
                "cannot refer to as one. Export it as one file or as single slices."
            )
        for header in headers:
            _complete(header, folder)
        if len(headers) > 1:
            for header in headers:  # those of one series may differ by how they are rounded
                header.ImageOrientationPatient = headers[0].ImageOrientationPatient
                header.FrameOfReferenceUID = headers[0].FrameOfReferenceUID
                # Measured between positions: what headers call spacing is often the gap.
                header.SpacingBetweenSlices = stack.spacing_mm[2]
        if str(headers[0].Modality) not in PROCEDURES:
            raise InputError(
                f"{folder} holds a series of modality {headers[0].Modality}. Objects are written "
                f"for {' and '.join(PROCEDURES)}."
            )
        return cls(stack, headers)

    @property
    def uid(self) -> str:
        return str(self.headers[0].SeriesInstanceUID)

    @property
    def modality(self) -> str:
        return str(self.headers[0].Modality)

    @property
    def voxel_ml(self) -> float:
        return float(np.prod(self.stack.spacing_mm)) / 1000

    def require_scan(self, scan: Volume, *, name: str) -> None:
        """Refuse a scan that is not this series: objects go into a patient's record.

        A cohort does not know whose its cases are, but it has their voxels. Those may be scaled
        otherwise, as converters scale them.

        Raises:
            InputError: another grid, or other voxels.
        """
        image = read_stack(self.stack, name=name)
        same = image.shape == scan.shape and corner_distance_mm(image, scan) <= GRID_TOLERANCE_MM
        alike = same and np.corrcoef(image.data.ravel(), scan.data.ravel())[0, 1] >= ALIKE
        if not alike:
            raise InputError(
                f"{name} is not the scan of this series: its {'voxels are' if same else 'grid is'} "
                "another. Give the series that this very scan was imported from."
            )

    def in_slices(
        self, mask: Volume, schema: LabelSchema, *, name: str
    ) -> UInt8[np.ndarray, "slices rows columns"]:
        """A label map in the frames of the series, in the order of its file or files.

        A mask on the scan's own voxels is only turned; one on another grid is drawn on it.

        Raises:
            InputError: a mask of which a class lies outside the series, or most of it.
        """
        rows, columns = self.stack.frames[0].size
        empty = np.zeros((columns, rows, len(self.stack.frames)), dtype=np.uint8)
        canonical = to_canonical(empty, self.stack.affine)
        same = mask.shape == canonical.shape
        if same and corner_distance_mm(mask, canonical) <= GRID_TOLERANCE_MM:
            drawn = mask.data.astype(np.uint8)
        else:
            drawn = draw_on_grid(mask, canonical, n_classes=len(schema), name=name)
            _require_kept(mask, canonical.with_data(drawn), schema, name)
        back = orientations.ornt_transform(
            orientations.axcodes2ornt("RAS"), nib.io_orientation(self.stack.affine)
        )
        turned = orientations.apply_orientation(drawn, back)  # column, row, slice
        frames = np.ascontiguousarray(turned.transpose(2, 1, 0))
        if len(self.headers) > 1:
            return frames
        # A multi-frame file keeps its frames in an order of its own.
        return frames[np.argsort([frame.index for frame in self.stack.frames])]


@contextmanager
def written_by_highdicom(what: str) -> Iterator[None]:
    """Its objections to a header as a sentence, and its warnings, which may quote names, unsaid.

    Raises:
        InputError: a header that an object cannot be made of.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        kind = type(error).__name__
        raise InputError(
            f"No {what} can be made of this series: its header lacks something, or holds a value "
            f"that DICOM does not allow there ({kind}). Export the original series."
        ) from error


def _complete(header: Dataset, folder: Path) -> None:
    for keyword in NEEDED:
        if not header.get(keyword):
            raise InputError(
                f"{folder}: an image has no {keyword}, so nothing can refer to it. "
                "Export the original series."
            )
    if not header.get("FrameOfReferenceUID"):
        raise InputError(
            f"{folder}: an image has no FrameOfReferenceUID, so a segmentation cannot say where it "
            "lies. Export the original series."
        )
    for keyword in MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)


def _require_kept(mask: Volume, drawn: Volume, schema: LabelSchema, name: str) -> None:
    """What lies outside the series would be missing from its volumes without a word."""
    mm3 = [of.voxel_volume_mm3 for of in (mask, drawn)]
    for class_name, value in schema.as_mapping().items():
        before, after = (int((of.data == value).sum()) for of in (mask, drawn))
        had, has = before * mm3[0] / 1000, after * mm3[1] / 1000
        if value and has < (1 - MOST_LOST) * had - mm3[1] / 1000:
            raise InputError(
                f"{name}: {had:.3g} ml of {class_name} are in the mask and {has:.3g} ml in the "
                "series. Give the mask of this scan, and all of the scan."
            )
