"""Decoded voxels land where the header says they lie, with the grey values it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neonet3d.cohort.importers.dicom_headers import Series
from neonet3d.cohort.importers.dicom_pixels import read_stack
from neonet3d.cohort.importers.dicom_stack import stack_series
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError

CORONAL = (1, 0, 0, 0, 0, -1)
SAGITTAL = (0, 1, 0, 0, 0, -1)
TILT = np.radians(20)
OBLIQUE = (np.cos(TILT), np.sin(TILT), 0, -np.sin(TILT) * 0.8, np.cos(TILT) * 0.8, 0.6)


def require_in_place(written: Any, volume: Volume, values: np.ndarray) -> None:
    """Every pixel lies in the volume where DICOM PS3.3 C.7.6.2.1.1 puts it."""
    k, r, c = np.indices(values.shape).reshape(3, -1)
    heads = written.datasets
    position = np.array([d.ImagePositionPatient for d in heads], dtype=float)[k]
    orientation = np.array(heads[0].ImageOrientationPatient, dtype=float)
    rows_mm, columns_mm = (float(s) for s in heads[0].PixelSpacing)
    lps = (
        position
        + np.outer(c * columns_mm, orientation[:3])
        + np.outer(r * rows_mm, orientation[3:])
    )
    ras = lps * [-1, -1, 1]
    inverse = np.linalg.inv(volume.affine)
    index = ras @ inverse[:3, :3].T + inverse[:3, 3]
    np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
    x, y, z = np.rint(index).astype(int).T
    np.testing.assert_allclose(volume.data[x, y, z], values[k, r, c], rtol=1e-6)


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), CORONAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_pixel_lands_where_the_header_puts_it(
    make_series: Callable[..., Any],
    read_one: Callable[[Path], Series],
    orientation: tuple[float, ...],
    reverse: bool,
) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    step = -3 * normal if reverse else 3 * normal
    written = make_series(orientation=orientation, step=step)
    volume = read_stack(stack_series(read_one(written.folder)), name="a")
    assert sorted(volume.spacing_mm) == pytest.approx([0.8, 0.9, 3.0])
    assert volume.data.dtype == np.float32
    require_in_place(written, volume, written.stored)


def test_slope_and_intercept_are_those_of_each_slice(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series]
) -> None:
    def scale(k: int) -> dict[str, float]:
        return {"RescaleSlope": 1 + 0.5 * k, "RescaleIntercept": -10.0 * k}

    written = make_series(per_slice=scale)
    volume = read_stack(stack_series(read_one(written.folder)), name="a")
    k = np.arange(len(written.stored))[:, None, None]
    require_in_place(written, volume, written.stored * (1 + 0.5 * k) - 10.0 * k)


def test_signed_pixels_are_signed(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series]
) -> None:
    written = make_series(PixelRepresentation=1)
    written.rewrite(0, PixelData=np.full((5, 7), -1000, "<i2").tobytes())
    volume = read_stack(stack_series(read_one(written.folder)), name="a")
    assert volume.data.min() == -1000


@pytest.mark.parametrize(
    "syntax",
    [
        "1.2.840.10008.1.2.5",  # RLE
        "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
        "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    ],
)
def test_compressed_slices_are_decoded(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series], syntax: str
) -> None:
    written = make_series(syntax=syntax, size=(40, 36))
    volume = read_stack(stack_series(read_one(written.folder)), name="a")
    require_in_place(written, volume, written.stored)


def test_jpeg_lossless_is_decoded_by_gdcm(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series]
) -> None:
    """pydicom has no encoder for it; GDCM writes the files."""
    gdcm = pytest.importorskip("gdcm")
    written = make_series(size=(40, 36))
    for path in written.files:
        reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    series = read_one(written.folder)
    assert {frame.transfer_syntax for frame in series.frames} == {"1.2.840.10008.1.2.4.70"}
    require_in_place(written, read_stack(stack_series(series), name="a"), written.stored)


@pytest.mark.parametrize("damage", ["short", "size", "constant"])
def test_damaged_pixels_are_refused(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series], damage: str
) -> None:
    written = make_series()
    if damage == "constant":
        for k in range(6):
            written.rewrite(k, PixelData=bytes(70))
        sentence = "a: every voxel has the value 0"
    else:
        written.rewrite(2, PixelData=bytes(30))
        sentence = rf"a: the pixels of .*{written.files[2].name} cannot be decoded"
    stack = stack_series(read_one(written.folder))
    if damage == "size":
        written.files[2].unlink()
        sentence = rf"a: .*{written.files[2].name} cannot be read"
    with pytest.raises(InputError, match=sentence):
        read_stack(stack, name="a")
