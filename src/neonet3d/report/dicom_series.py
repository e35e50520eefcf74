"""The series that a DICOM object is written for: its headers, and masks in its own slices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import UInt8
from nibabel import orientations
from pydicom import dcmread
from pydicom.dataset import Dataset

from neonet3d.cohort.importers.dicom import choose_series, list_series
from neonet3d.cohort.importers.dicom_stack import Stack
from neonet3d.cohort.regrid import draw_on_grid
from neonet3d.cohort.volume import GRID_TOLERANCE_MM, Volume, corner_distance_mm, to_canonical
from neonet3d.errors import InputError


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
            InputError: no usable series, several, or several patients.
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
        return cls(stack, tuple(dcmread(path, stop_before_pixels=True) for path in paths))

    @property
    def uid(self) -> str:
        return str(self.headers[0].SeriesInstanceUID)

    def in_slices(
        self, mask: Volume, *, n_classes: int, name: str
    ) -> UInt8[np.ndarray, "slices rows columns"]:
        """A label map in the frames of the series, in the order of ``headers``.

        A mask on the scan's own voxels is only turned; one on another grid is drawn on it.

        Raises:
            InputError: a mask that lies outside the series.
        """
        rows, columns = self.stack.frames[0].size
        shape = (columns, rows, len(self.stack.frames))
        empty = np.zeros(shape, dtype=np.uint8)
        canonical = to_canonical(empty, self.stack.affine)
        same = mask.shape == canonical.shape
        if same and corner_distance_mm(mask, canonical) <= GRID_TOLERANCE_MM:
            drawn = mask.data.astype(np.uint8)
        else:
            drawn = draw_on_grid(mask, canonical, n_classes=n_classes, name=name)
        back = orientations.ornt_transform(
            orientations.axcodes2ornt("RAS"), nib.io_orientation(self.stack.affine)
        )
        turned = orientations.apply_orientation(drawn, back)  # column, row, slice
        frames = np.ascontiguousarray(turned.transpose(2, 1, 0))
        # A multi-frame file keeps its frames in an order of its own.
        order = np.argsort([f.index for f in self.stack.frames]) if len(self.headers) == 1 else ...
        return frames[order]
