"""Order, affine and refusals of a series; that voxels land where the header says they lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.decoders import JPEG2000LosslessDecoder

from neonet3d.cohort.importers.dicom_headers import Series, list_files, read_series
from neonet3d.cohort.importers.dicom_pixels import read_stack
from neonet3d.cohort.importers.dicom_stack import stack_series
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError

CORONAL = (1, 0, 0, 0, 0, -1)
SAGITTAL = (0, 1, 0, 0, 0, -1)
TILT = np.radians(20)
OBLIQUE = (np.cos(TILT), np.sin(TILT), 0, -np.sin(TILT) * 0.8, np.cos(TILT) * 0.8, 0.6)


def read_one(folder: Any) -> Series:
    found, others = read_series(folder, list_files(folder))
    assert (len(found), others) == (1, 0)
    return found[0]


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
    make_series: Callable[..., Any], orientation: tuple[float, ...], reverse: bool
) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    step = -3 * normal if reverse else 3 * normal
    written = make_series(orientation=orientation, step=step)
    volume = read_stack(stack_series(read_one(written.folder)), name="a")
    assert sorted(volume.spacing_mm) == pytest.approx([0.8, 0.9, 3.0])
    assert volume.data.dtype == np.float32
    require_in_place(written, volume, written.stored)


def test_slope_and_intercept_are_those_of_each_slice(make_series: Callable[..., Any]) -> None:
    def scale(k: int) -> dict[str, float]:
        return {"RescaleSlope": 1 + 0.5 * k, "RescaleIntercept": -10.0 * k}

    written = make_series(per_slice=scale)
    volume = read_stack(stack_series(read_one(written.folder)), name="a")
    k = np.arange(len(written.stored))[:, None, None]
    require_in_place(written, volume, written.stored * (1 + 0.5 * k) - 10.0 * k)


def test_signed_pixels_are_signed(make_series: Callable[..., Any]) -> None:
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
def test_compressed_slices_are_decoded(make_series: Callable[..., Any], syntax: str) -> None:
    written = make_series(syntax=syntax, size=(40, 36))
    volume = read_stack(stack_series(read_one(written.folder)), name="a")
    require_in_place(written, volume, written.stored)


def test_jpeg_lossless_is_decoded_by_gdcm(make_series: Callable[..., Any]) -> None:
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


def test_a_syntax_without_decoder_is_named(make_series: Callable[..., Any]) -> None:
    written = make_series()
    for index in range(6):
        written.datasets[index].file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
        written.datasets[index]["PixelData"].is_undefined_length = True
        written.datasets[index].PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
        written.rewrite(index)
    with pytest.raises(InputError, match=r"1\.2\.840\.10008\.1\.2\.4\.100 \(MPEG2.*any package"):
        stack_series(read_one(written.folder))


def test_a_decoder_that_is_not_installed_is_named(
    make_series: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = make_series(syntax="1.2.840.10008.1.2.4.90", size=(40, 36))
    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})
    monkeypatch.setattr(
        JPEG2000LosslessDecoder, "_unavailable", {"pylibjpeg": ("pylibjpeg-openjpeg>=2.0",)}
    )
    with pytest.raises(InputError, match=r"1\.2\.4\.90 .*no decoder.*pylibjpeg-openjpeg"):
        stack_series(read_one(written.folder))


def remove(k: int) -> Callable[[Any], None]:
    return lambda written: written.files[k].unlink()


def change(k: int, **changes: Any) -> Callable[[Any], None]:
    return lambda written: written.rewrite(k, **changes)


def change_all(**changes: Any) -> Callable[[Any], None]:
    def do(written: Any) -> None:
        for k in range(len(written.files)):
            written.rewrite(k, **changes)

    return do


def forget(keyword: str) -> Callable[[Any], None]:
    def do(written: Any) -> None:
        delattr(written.datasets[2], keyword)
        written.rewrite(2)

    return do


def copy_of(*slices: int, **changes: Any) -> Callable[[Any], None]:
    """The same places once more, under other names."""

    def do(written: Any) -> None:
        for k in slices:
            for keyword, value in changes.items():
                setattr(written.datasets[k], keyword, value)
            path = written.folder / f"copy{k}"
            written.datasets[k].save_as(path, enforce_file_format=True)

    return do


def twice(**changes: tuple[Any, Any]) -> Callable[[Any], None]:
    """Every place in two phases that differ in these attributes."""

    def do(written: Any) -> None:
        change_all(**{keyword: values[0] for keyword, values in changes.items()})(written)
        copy_of(*range(6), **{keyword: values[1] for keyword, values in changes.items()})(written)

    return do


REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "a slice is missing": (
        remove(3),
        r"1 slices are missing: 6 mm lie between slices 3 and 4 where the step is 3 mm",
    ),
    "a slice is not in its place": (
        change(3, ImagePositionPatient=[-20, 30, -30.7]),
        "3 to 3.3 mm apart|2.7 to 3.3 mm apart",
    ),
    "a slice lies aside": (
        change(3, ImagePositionPatient=[-19, 30, -31]),
        "lies 1 mm beside the line",
    ),
    "a slice twice": (copy_of(2), "7 images at 6 positions; 1 positions hold several"),
    "every slice twice": (copy_of(*range(6)), "2 images at each of 6 positions: .*copied twice"),
    "echoes": (
        twice(EchoTime=("1.2", "2.4")),
        r"2 images at each of 6 positions: several phases that differ in EchoTime \(1.2, 2.4\)",
    ),
    "phases": (
        twice(TemporalPositionIdentifier=(1, 2)),
        r"differ in TemporalPositionIdentifier \(1, 2\)",
    ),
    "orientations": (
        change(3, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        "6 images of 2 orientations: a localiser",
    ),
    "spacings": (change(3, PixelSpacing=[2, 2]), "2 pixel spacings"),
    "sizes": (
        change(3, Rows=4, PixelData=bytes(56)),
        "2 sizes",
    ),
    "colour": (
        change_all(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
        "a colour picture",
    ),
    "inverted": (change_all(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1, not"),
    "lookup table": (change_all(ModalityLUTSequence=[Dataset()]), "Modality LUT"),
    "no place": (forget("ImagePositionPatient"), "ImagePositionPatient missing"),
    "no orientation": (forget("ImageOrientationPatient"), "ImageOrientationPatient missing"),
    "no spacing": (forget("PixelSpacing"), "PixelSpacing missing"),
    "zero spacing": (change(2, PixelSpacing=[0, 1]), "is not usable"),
    "not at right angles": (
        change_all(ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]),
        "not two directions at right angles",
    ),
    "frames without places": (change(2, NumberOfFrames=3), "3 frames in one file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_makes_no_regular_block_is_refused(make_series: Callable[..., Any], kind: str) -> None:
    spoil, sentence = REFUSED[kind]
    written = make_series()
    spoil(written)
    with pytest.raises(InputError, match=sentence):
        stack_series(read_one(written.folder))


def test_a_gantry_tilt_is_refused_with_its_angle(make_series: Callable[..., Any]) -> None:
    written = make_series(step=(0, 3 * np.tan(np.radians(12)), 3))
    with pytest.raises(InputError, match=r"leans by 12 degrees .*\(gantry tilt\)"):
        stack_series(read_one(written.folder))


def test_few_slices_are_a_localiser(make_series: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="3 slices are a localiser"):
        stack_series(read_one(make_series(n=3).folder))


def test_rounded_positions_are_regular(make_series: Callable[..., Any]) -> None:
    """Scanners round positions; the step is measured over the whole stack."""
    written = make_series(step=(0, 0, 10 / 3), n=30)
    for k in range(30):
        written.rewrite(k, ImagePositionPatient=[-20, 30, round(-40 + k * 10 / 3, 2)])
    stack = stack_series(read_one(written.folder))
    assert stack.spacing_mm[2] == pytest.approx(10 / 3, abs=1e-3)


@pytest.mark.parametrize("damage", ["short", "size", "constant"])
def test_damaged_pixels_are_refused(make_series: Callable[..., Any], damage: str) -> None:
    written = make_series()
    if damage == "constant":
        change_all(PixelData=bytes(70))(written)
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
