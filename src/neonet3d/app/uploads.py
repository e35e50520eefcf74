"""Taking a scan from the browser: one NIfTI file, or a DICOM series in a zip.

A name says nothing that is used: what a file is, its first bytes say, and it lies in the job's
folder under a name of ours. Sizes are bounded before anything is unpacked, and counted while it is.
"""

from __future__ import annotations

import lzma
import re
import unicodedata
import zipfile
import zlib
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

from neonet3d.cohort.nifti import HEADER_BYTES, declared_bytes
from neonet3d.cohort.stream import StreamError, inflate_head, is_gzip
from neonet3d.errors import InputError

MOST_BYTES = 512 << 20  # that are sent
MOST_UNPACKED = 2 << 30
MOST_FILES = 20_000  # of a zip
MOST_RATIO = 200  # of a zip; pixels of scans seldom shrink tenfold
PLAIN_NAME = re.compile(r"[\w.,()+@ =-]{1,150}")
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an empty one
GZIP_HEAD = 1 << 18  # of a file; a header is in it
PIECE = 1 << 20
UNZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,  # NotImplementedError, of a method that is not known, is one
    ValueError,
)


def require_plain_name(name: str) -> None:
    """
    Raises:
        InputError: a name with more than letters, digits and a few signs.
    """
    # macOS writes letters with accents as two signs.
    if not PLAIN_NAME.fullmatch(unicodedata.normalize("NFC", name)):
        raise InputError(
            "The file's name has characters other than letters, digits, spaces and . , ( ) + - _ "
            "@ =. Rename it and send it again."
        )


def require_size(announced: str | None) -> None:
    """
    Raises:
        InputError: no length, or more than ``MOST_BYTES``.
    """
    if announced is None or not announced.isascii() or not announced.isdigit():
        raise InputError("The upload does not say how long it is. Send it from the app's page.")
    if int(announced) > MOST_BYTES:
        raise InputError(
            f"The file has {int(announced) / 2**20:.0f} MB, and the app takes {MOST_BYTES >> 20}. "
            "Use the command line for larger ones: 'neonet3d cohort import'."
        )


async def receive(stream: AsyncIterator[bytes], path: Path) -> None:
    """Write what comes to a file.

    Raises:
        InputError: more than ``MOST_BYTES``, or nothing; no room on the disk.
    """
    taken = 0
    try:
        with path.open("xb") as file:
            async for piece in stream:
                taken += len(piece)
                if taken > MOST_BYTES:
                    raise InputError(f"The upload goes on beyond {MOST_BYTES >> 20} MB.")
                file.write(piece)
    except OSError as error:
        raise InputError(
            f"The upload cannot be kept ({error.strerror}). Make room for temporary files."
        ) from error
    if not taken:
        raise InputError("The file is empty. Choose another one.")


def unpack(upload: Path, folder: Path) -> Path:
    """What ``cohort.importers`` can read of an upload: a NIfTI file, or a folder.

    Args:
        upload: the file as it came; it is moved or removed.
        folder: where to unpack it.

    Raises:
        InputError: neither NIfTI nor zip, or a zip that is encrypted, damaged, too large or has
            names that lead out of it.
    """
    with upload.open("rb") as file:
        head = file.read(GZIP_HEAD)
    if head.startswith(ZIP):
        target = folder / "series"
        target.mkdir()
        _unzip(upload, target)
        upload.unlink()
        return target
    _require_declared(head)
    return upload.rename(folder / ("scan.nii.gz" if is_gzip(head) else "scan.nii"))


def _require_declared(head: bytes) -> None:
    """Refuse a NIfTI by what its header declares.

    Raises:
        InputError: a damaged head, or more than ``MOST_UNPACKED`` of voxels.
    """
    try:
        plain = inflate_head(head, HEADER_BYTES) if is_gzip(head) else head[:HEADER_BYTES]
    except StreamError as error:
        raise InputError(f"The file is damaged ({error}). Copy it again from its source.") from None
    declared = declared_bytes(plain)
    if declared > MOST_UNPACKED:
        raise InputError(
            f"The header declares {declared / 2**30:.0f} GB of voxels, and the app takes "
            f"{MOST_UNPACKED >> 30}. No liver scan is that large; use the command line if yours is."
        )


def _unzip(upload: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(upload) as archive:
            files = [one for one in archive.infolist() if not one.is_dir() and not _of_finder(one)]
            _require_harmless(files, upload.stat().st_size)
            room = MOST_UNPACKED
            for number, entry in enumerate(files):
                # Names are not kept: DICOM files say in themselves what they are.
                to = target / f"{number:05d}{_suffix(entry)}"
                room -= _extract(archive, entry, to, room)
                if to.name.endswith((".nii", ".nii.gz")):
                    with to.open("rb") as file:
                        _require_declared(file.read(GZIP_HEAD))
    except InputError:  # a ValueError, and a sentence already
        raise
    except UNZIP_ERRORS as error:  # whose text may quote a name inside the zip, a patient's often
        raise InputError(
            f"The zip cannot be unpacked ({type(error).__name__}). Make it again."
        ) from error


def _of_finder(entry: zipfile.ZipInfo) -> bool:
    """What macOS puts beside the files that are meant."""
    parts = PurePosixPath(entry.filename).parts
    return "__MACOSX" in parts or bool(parts and parts[-1].startswith("._"))


def _require_harmless(files: list[zipfile.ZipInfo], packed: int) -> None:
    if not files:
        raise InputError("The zip is empty. Put the DICOM files of one series into it.")
    if any(entry.flag_bits & 1 for entry in files):
        raise InputError(
            "The zip is encrypted. Make one without a password; it stays on this machine."
        )
    unpacked = sum(entry.file_size for entry in files)
    if len(files) > MOST_FILES or unpacked > min(MOST_UNPACKED, MOST_RATIO * packed):
        raise InputError(
            f"The zip would unpack to {len(files)} files and {unpacked / 2**20:.0f} MB, which no "
            "DICOM series of one scan does. Put the files of one series into it."
        )
    for entry in files:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", str(path)):
            raise InputError(
                "The zip has a name that leads out of it, such as '../'. Make it again from the "
                "folder of the series."
            )


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, to: Path, room: int) -> int:
    """Bytes that came out, which the directory of a zip need not say truly."""
    taken = 0
    with archive.open(entry) as source, to.open("xb") as file:
        while piece := source.read(PIECE):
            taken += len(piece)
            if taken > room:
                raise InputError("The zip unpacks to more than it says. Make it again.")
            file.write(piece)
    return taken


def _suffix(entry: zipfile.ZipInfo) -> str:
    name = entry.filename.lower()
    return next((end for end in (".nii.gz", ".nii", ".dcm") if name.endswith(end)), "")
