"""A NIfTI file as header and voxels, verified before anything is made of it.

The header is looked at first: what it declares bounds what a compressed file may grow to in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from neonet3d.cohort.label_names import LABEL_INTENT, is_label_table, label_names
from neonet3d.cohort.stream import (
    OversizedStreamError,
    StreamError,
    inflate,
    inflate_head,
    is_gzip,
)
from neonet3d.errors import InputError
from neonet3d.types import Affine, Shape, Triple

QFORM_TOLERANCE_MM = 0.1
SHEAR_TOLERANCE = 1e-3  # cosine between two voxel axes
HEADER_BYTES = 544  # of NIfTI-2; NIfTI-1 has 352
PADDING_BYTES = 4096  # some writers fill their last block
LARGEST_BYTES = 8 << 30  # 2048 x 2048 x 2048 voxels of one byte; no scan is that large
DEFLATE_RATIO = 1032  # a byte of a gzip stream cannot hold more
TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
SPATIAL_UNITS = {1: "m", 3: "µm"}  # what NIfTI knows beside mm and unknown


@dataclass(frozen=True)
class NiftiFile:
    """A verified 3D file.

    Attributes:
        image: nibabel's view of it, with the header.
        data: voxels (x, y, z) on the file's own axes; scaled, in the type that gives.
        spacing_mm: voxel size as the header's ``pixdim`` has it, which need not be the affine's.
    """

    image: nib.Nifti1Image
    data: np.ndarray
    spacing_mm: Triple

    @property
    def shape(self) -> Shape:
        x, y, z = self.data.shape
        return (x, y, z)


@dataclass(frozen=True)
class HeaderNotes:
    """What a reader may pass over but a person should know.

    Attributes:
        placeless: neither qform nor sform says where the file lies, so left and right are assumed.
        places_apart_mm: farthest distance of a corner by qform and by sform; None without both.
        misleading_spacing_mm: the header's voxel size where the affine, which is read, has another.
        singleton_axes: the file has axes of length 1 behind the third.
        text: fields that hold free text, by name; never what they hold. A table of label names as
            this package writes it is none.
    """

    placeless: bool
    places_apart_mm: float | None
    misleading_spacing_mm: Triple | None
    singleton_axes: bool
    text: tuple[str, ...]


def read_nifti(path: Path, name: str) -> NiftiFile:
    """Header and voxels, without singleton axes behind the third.

    A file with qform and sform lies where its sform says, as NIfTI demands.

    Raises:
        InputError: no or a damaged file, RGB or complex, not 3D, no voxel, an affine that cannot
            be used.
    """
    image, data, spacing = _parse(read_verified(path, name), name)
    if image.get_data_dtype().fields is not None or image.get_data_dtype().kind == "c":
        kind = "complex" if image.get_data_dtype().kind == "c" else "RGB"
        raise InputError(
            f"{name}: voxels are {kind}, not one number each. "
            "Export one channel (the magnitude) as 3D NIfTI."
        )
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(
            f"{name}: the file has {len(shape)} dimensions {tuple(image.shape)}, not 3. "
            "Choose one channel or phase and save it as its own file."
        )
    if 0 in shape:
        raise InputError(
            f"{name}: the file has {'x'.join(map(str, shape))} voxels, which is none. Export it "
            "again or remove the case."
        )
    _check_affine(image, name)
    return NiftiFile(image, data.reshape(shape), spacing)


def note_header(file: NiftiFile) -> HeaderNotes:
    """No place or two, a voxel size that misleads other readers, free text."""
    header, affine = file.image.header, file.image.affine
    qform, qcode = file.image.get_qform(coded=True)
    sform, scode = file.image.get_sform(coded=True)
    apart = farthest_corner_mm(qform - sform, file.shape) if qcode and scode else None
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    misleads = not np.allclose(spacing, file.spacing_mm, rtol=1e-2, atol=1e-3)
    # NIfTI-2 has fewer fields.
    fields = [field for field in TEXT_FIELDS if field in header.keys()]  # noqa: SIM118
    text = [field for field in fields if bytes(header[field]).strip(b"\0 ")]
    code, _, intent = header.get_intent("code")
    if (code, intent) == LABEL_INTENT:
        text.remove("intent_name")
    if not all(is_label_table(extension) for extension in header.extensions):
        text.append("an extension")
    return HeaderNotes(
        placeless=not qcode and not scode,
        places_apart_mm=apart,
        misleading_spacing_mm=file.spacing_mm if misleads else None,
        singleton_axes=len(file.image.shape) > 3,
        text=tuple(text),
    )


def read_label_names(path: Path, *, name: str | None = None) -> dict[int, str] | None:
    """Value and name of each class of a mask, where its header names them; else None.

    Raises:
        InputError: as ``read_nifti``, and for a table of names that is damaged.
    """
    name = name or path.name
    return label_names(read_nifti(path, name).image.header.extensions, name)


def corners_mm(affine: Affine, shape: Shape) -> np.ndarray:
    """World coordinates (8, 3) of the centres of the corner voxels."""
    last = np.array(shape) - 1
    index = np.array(np.meshgrid(*[(0, n) for n in last], indexing="ij")).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).T


def farthest_corner_mm(difference: Affine, shape: Shape) -> float:
    """Greatest displacement of a corner by the difference of two affines, in mm."""
    return float(np.linalg.norm(corners_mm(difference, shape), axis=1).max())


def _parse(payload: bytes, name: str) -> tuple[nib.Nifti1Image, np.ndarray, Triple]:
    """Header and voxels; nibabel has a kind of exception for each thing that can be wrong."""
    kind = nib.Nifti2Image if _version(payload) == 2 else nib.Nifti1Image
    try:
        image = kind.from_bytes(payload)
        data = np.asanyarray(image.dataobj)
        image.get_qform(coded=True)
    except (HeaderDataError, ImageFileError, WrapStructError, OSError, ValueError) as error:
        raise InputError(
            f"{name}: this is not a whole NIfTI file ({error}). "
            "Copy it again from its source, or convert it again from DICOM."
        ) from error
    header = image.header
    # nibabel mends a voxel size when it loads; what the file says is in its bytes.
    bare = type(header)(payload[: header.sizeof_hdr], check=False)
    x, y, z = (float(s) for s in bare["pixdim"][1:4])
    if not header["sform_code"] and not min(x, y, z) > 0:
        raise InputError(
            f"{name}: the header gives a voxel size of {[x, y, z]} mm. "
            "Convert the scan again from DICOM."
        )
    return image, data, (x, y, z)


def _version(payload: bytes) -> int:
    """1 or 2; 0 for what is no NIfTI. The size of the header comes first, in either byte order."""
    if payload[:4] in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        return 1
    return 2 if payload[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c") else 0


def _check_affine(image: nib.Nifti1Image, name: str) -> None:
    affine = image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or np.any(spacing < 1e-6):
        raise InputError(
            f"{name}: the affine is not usable (spacing {spacing.tolist()} mm). "
            "Convert the scan again from DICOM."
        )
    unit = SPATIAL_UNITS.get(int(image.header["xyzt_units"]) & 7)
    if unit is not None:
        raise InputError(
            f"{name}: the header gives the spacing in {unit} "
            f"({', '.join(f'{s:g}' for s in spacing)} {unit}), and everything here is in mm. "
            "Write affine and header in mm."
        )
    if spacing.max() > 100:
        raise InputError(
            f"{name}: a voxel is {spacing.max():g} mm long; the spacing seems to be in µm. "
            "Write it in mm."
        )
    if spacing.max() < 0.01:
        raise InputError(
            f"{name}: a voxel is {spacing.max():g} mm long; the spacing seems to be in m. "
            "Write it in mm."
        )
    axes = affine[:3, :3] / spacing
    shear = np.abs(axes.T @ axes - np.eye(3)).max()
    if shear > SHEAR_TOLERANCE:
        raise InputError(
            f"{name}: the affine is sheared (axes' cosine {shear:.3g}, a gantry tilt?). "
            "Resample the scan to an orthogonal grid first."
        )


def read_verified(path: Path, name: str) -> bytes:
    """All bytes of a file; a gzip stream is read to its end, but not beyond what it declares."""
    if not path.is_file():
        raise InputError(f"{name}: there is no file {path}. Check the path.")
    raw = path.read_bytes()
    if not is_gzip(raw):
        return raw
    try:
        head = inflate_head(raw, HEADER_BYTES)
        declared = declared_bytes(head)
        if declared > min(LARGEST_BYTES, DEFLATE_RATIO * len(raw)):
            raise StreamError(
                f"its header declares {declared} bytes of voxels, which {len(raw)} bytes of gzip "
                "do not hold"
            )
        return inflate(raw, largest=declared + PADDING_BYTES)
    except OversizedStreamError as error:
        what = "made to fill the memory" if _version(head) else "no NIfTI file"
        raise InputError(
            f"{name}: {path} is damaged or {what}: its header declares {declared} bytes and "
            f"{error}. Copy it again from its source."
        ) from error
    except StreamError as error:
        raise InputError(
            f"{name}: {path} is damaged ({error}). Copy it again from its source."
        ) from error


def declared_bytes(head: bytes) -> int:
    """Size of the file that a header announces: the header, extensions and voxels."""
    version = _version(head)
    kind = nib.Nifti2Header if version == 2 else nib.Nifti1Header
    if not version or len(head) < kind.sizeof_hdr:
        return len(head)  # no NIfTI, which the reader says; nothing more of it is needed
    header = kind(head[: kind.sizeof_hdr], check=False)
    sizes = [int(n) for n in header["dim"][1 : 1 + min(max(int(header["dim"][0]), 0), 7)]]
    voxels = int(np.prod([max(n, 0) for n in sizes], dtype=object))
    offset = float(header["vox_offset"])
    return (
        int(min(max(offset, HEADER_BYTES), LARGEST_BYTES)) + voxels * int(header["bitpix"]) // 8
        if np.isfinite(offset)
        else len(head)
    )
