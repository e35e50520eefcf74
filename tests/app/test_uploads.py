"""What is refused before it is unpacked, and what comes out of what is not."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neonet3d.app import uploads
from neonet3d.app.uploads import receive, require_plain_name, require_size, unpack
from neonet3d.cohort.stream import deflate
from neonet3d.errors import InputError


def upload(folder: Path, payload: bytes) -> tuple[Path, Path]:
    path, target = folder / "upload.bin", folder / "unpacked"
    path.write_bytes(payload)
    target.mkdir()
    return path, target


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def nifti(shape: tuple[int, ...] = (4, 4, 4)) -> bytes:
    return bytes(nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)).to_bytes())


@pytest.mark.parametrize(
    "name", ["scan.nii.gz", "Series 5 (HBP), 3.0T.zip", "Müller_1.nii", "Mu\u0308ller.nii"]
)
def test_plain_names_are_taken(name: str) -> None:
    require_plain_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "<img src=x onerror=alert(1)>.nii",
        "a/b.nii",
        "..\\b.nii",
        "a\nb.nii",
        "a\0.nii",
        "x" * 200,
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="Rename it"):
        require_plain_name(name)


@pytest.mark.parametrize("length", [None, "", "-1", "1e3", "x"])
def test_a_length_that_is_none_is_refused(length: str | None) -> None:
    with pytest.raises(InputError, match="does not say how long"):
        require_size(length)


def test_two_gigabytes_are_refused_by_what_they_announce() -> None:
    require_size(str(uploads.MOST_BYTES))
    with pytest.raises(InputError, match="2048 MB, and the app takes 512"):
        require_size(str(2 << 30))


def in_a_thread(coroutine: Coroutine[Any, Any, None]) -> None:
    """The browser of other tests keeps a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, coroutine).result()


def test_what_goes_on_beyond_its_length_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MOST_BYTES", 10)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"12345"

    with pytest.raises(InputError, match="goes on beyond"):
        in_a_thread(receive(pieces(), tmp_path / "file"))

    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    with pytest.raises(InputError, match="is empty"):
        in_a_thread(receive(nothing(), tmp_path / "empty"))


@pytest.mark.parametrize(("payload", "name"), [(nifti(), "scan.nii"),
                                               (deflate(nifti()), "scan.nii.gz")])  # fmt: skip
def test_a_scan_gets_a_name_of_ours(tmp_path: Path, payload: bytes, name: str) -> None:
    path, target = upload(tmp_path, payload)
    found = unpack(path, target)
    assert found == target / name
    assert found.read_bytes() == payload
    assert not path.exists()


def test_a_zip_is_unpacked_under_names_of_ours(tmp_path: Path) -> None:
    content = zipped(
        **{
            "DOE^JOHN/IM 1": b"one",
            "<b>/IM 2.dcm": b"two",
            "x.nii.gz": b"three",
            "__MACOSX/._x.nii.gz": b"what the Finder adds",
            "DOE^JOHN/._IM 1": b"what the Finder adds",
        }
    )
    path, target = upload(tmp_path, content)
    found = unpack(path, target)
    assert {one.name: one.read_bytes() for one in found.iterdir()} == {
        "00000": b"one",
        "00001.dcm": b"two",
        "00002.nii.gz": b"three",
    }
    assert not path.exists()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "is empty"),
        ({"../../etc/passwd": b"x"}, "leads out of it"),
        ({"/etc/passwd": b"x"}, "leads out of it"),
        ({"a\\..\\..\\b": b"x"}, "leads out of it"),
        ({"C:\\x": b"x"}, "leads out of it"),
        ({"bomb": bytes(8 << 20)}, "would unpack to 1 files and 8 MB"),
    ],
)
def test_zips_that_are_refused(tmp_path: Path, files: dict[str, bytes], sentence: str) -> None:
    path, target = upload(tmp_path, zipped(**files))
    with pytest.raises(InputError, match=sentence) as refused:
        unpack(path, target)
    assert "cannot be unpacked" not in str(refused.value)  # which would be another fault
    assert not any((target / "series").iterdir())


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    content = bytearray(zipped(scan=b"secret"))
    content[6] |= 1  # the flags of the file, and of the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path, target = upload(tmp_path, bytes(content))
    with pytest.raises(InputError, match="is encrypted"):
        unpack(path, target)


def test_a_zip_whose_directory_lies_is_stopped(tmp_path: Path) -> None:
    content = bytearray(zipped(scan=bytes(range(256)) * 4000))
    at = content.index(b"PK\x01\x02") + 24
    content[at : at + 4] = (10).to_bytes(4, "little")  # the unpacked size
    path, target = upload(tmp_path, bytes(content))
    with pytest.raises(InputError, match=r"cannot be unpacked|unpacks to more"):
        unpack(path, target)
    assert sum(one.stat().st_size for one in target.rglob("*") if one.is_file()) <= 10


def test_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    path, target = upload(tmp_path, zipped(scan=b"whole")[:-10])
    with pytest.raises(InputError, match="cannot be unpacked"):
        unpack(path, target)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_data_in_a_zip_is_refused(tmp_path: Path, method: int) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("DOE_JANE", np.random.default_rng(0).bytes(2000))
    content = bytearray(stream.getvalue())
    content[200:400] = bytes(200)
    path, target = upload(tmp_path, bytes(content))
    with pytest.raises(InputError, match="cannot be unpacked") as refused:
        unpack(path, target)
    assert "DOE" not in str(refused.value)


@pytest.mark.parametrize("in_zip", [False, True])
def test_a_header_that_declares_too_much_is_refused(tmp_path: Path, in_zip: bool) -> None:
    image = nib.Nifti1Image(np.zeros((1, 1, 1), np.float32), np.eye(4))
    header = image.header.copy()
    header["dim"] = [3, 20000, 20000, 2000, 1, 1, 1, 1]
    payload = deflate(header.binaryblock + bytes(1000))
    path, target = upload(tmp_path, zipped(**{"scan.nii.gz": payload}) if in_zip else payload)
    with pytest.raises(InputError, match="declares 2980 GB"):
        unpack(path, target)


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    path, target = upload(tmp_path, b"\x1f\x8b" + bytes(100))
    with pytest.raises(InputError, match="is damaged"):
        unpack(path, target)
