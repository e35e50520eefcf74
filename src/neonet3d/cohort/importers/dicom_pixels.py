"""Grey values of a stack of DICOM slices."""

from __future__ import annotations

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from neonet3d.cohort.importers.dicom_frames import Frame
from neonet3d.cohort.importers.dicom_stack import Stack
from neonet3d.cohort.volume import Volume, require_usable_image, to_canonical
from neonet3d.errors import InputError


def read_stack(stack: Stack, *, name: str) -> Volume:
    """Decode every slice, apply its own slope and intercept, and turn the block to RAS+.

    Args:
        name: the case, for error messages.

    Returns:
        Volume of float32; HU for CT, the scanner's units for MR.

    Raises:
        InputError: pixels that cannot be decoded or are cut short, a constant image.
    """
    rows, columns = stack.frames[0].size
    data = np.empty((columns, rows, len(stack.frames)), dtype=np.float32)
    path, dataset = None, Dataset()
    for k, frame in enumerate(stack.frames):
        if frame.path != path:
            path, dataset = frame.path, _read_file(frame, name)
        stored = _decode(frame, dataset, name)
        data[:, :, k] = stored.T * frame.slope + frame.intercept  # stored is (row, column)
    require_usable_image(data, name=name)
    return to_canonical(data, stack.affine)


def _read_file(frame: Frame, name: str) -> Dataset:
    try:
        return dcmread(frame.path)
    except Exception as error:  # pydicom has many kinds for what can be wrong with a file
        raise InputError(
            f"{name}: {frame.path} cannot be read ({error}). Copy it again from its source."
        ) from error


def _decode(frame: Frame, dataset: Dataset, name: str) -> np.ndarray:
    index = frame.index if int(dataset.get("NumberOfFrames") or 1) > 1 else None
    try:
        stored = pixel_array(dataset, index=index)
    except Exception as error:  # so have its decoders
        raise InputError(
            f"{name}: the pixels of {frame.path} cannot be decoded ({error}). "
            "Copy the file again from its source."
        ) from error
    if stored.shape != frame.size:
        raise InputError(
            f"{name}: {frame.path} holds pixels of shape {stored.shape} but its header says "
            f"{frame.size}. Export the series again."
        )
    return stored.astype(np.float64)
