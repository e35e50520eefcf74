"""What makes one regular block, and the sentence for what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.decoders import JPEG2000LosslessDecoder

from neonet3d.cohort.importers.dicom_headers import Series
from neonet3d.cohort.importers.dicom_stack import stack_series
from neonet3d.errors import InputError


def test_a_syntax_without_decoder_is_named(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series]
) -> None:
    written = make_series()
    for index in range(6):
        written.datasets[index].file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
        written.datasets[index]["PixelData"].is_undefined_length = True
        written.datasets[index].PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
        written.rewrite(index)
    with pytest.raises(InputError, match=r"1\.2\.840\.10008\.1\.2\.4\.100 \(MPEG2.*any package"):
        stack_series(read_one(written.folder))


def test_a_decoder_that_is_not_installed_is_named(
    make_series: Callable[..., Any],
    read_one: Callable[[Path], Series],
    monkeypatch: pytest.MonkeyPatch,
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
def test_what_makes_no_regular_block_is_refused(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series], kind: str
) -> None:
    spoil, sentence = REFUSED[kind]
    written = make_series()
    spoil(written)
    with pytest.raises(InputError, match=sentence):
        stack_series(read_one(written.folder))


def test_a_gantry_tilt_is_refused_with_its_angle(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series]
) -> None:
    written = make_series(step=(0, 3 * np.tan(np.radians(12)), 3))
    with pytest.raises(InputError, match=r"leans by 12 degrees .*\(gantry tilt\)"):
        stack_series(read_one(written.folder))


def test_few_slices_are_a_localiser(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series]
) -> None:
    with pytest.raises(InputError, match="3 slices are a localiser"):
        stack_series(read_one(make_series(n=3).folder))


def test_rounded_positions_are_regular(
    make_series: Callable[..., Any], read_one: Callable[[Path], Series]
) -> None:
    """Scanners round positions; the step is measured over the whole stack."""
    written = make_series(step=(0, 0, 10 / 3), n=30)
    for k in range(30):
        written.rewrite(k, ImagePositionPatient=[-20, 30, round(-40 + k * 10 / 3, 2)])
    stack = stack_series(read_one(written.folder))
    assert stack.spacing_mm[2] == pytest.approx(10 / 3, abs=1e-3)
