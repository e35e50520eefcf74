"""A volume: an array, where it lies in the patient, and the grid that it came from.

Inside the package every array is closest-canonical RAS+. What is written goes back to the
orientation that the user brought. Reading verifies: the whole gzip stream with its CRC, a usable
affine, finite values.
"""

from __future__ import annotations

import gzip
import os
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from neonet3d.errors import InputError
from neonet3d.types import Affine, ImageArray, LabelMap, Shape, Triple

GRID_TOLERANCE_MM = 1e-3  # image and mask may differ by less than this at a corner
QFORM_TOLERANCE_MM = 0.1
SHEAR_TOLERANCE = 1e-3  # cosine between two voxel axes


@dataclass(frozen=True)
class Volume:
    """A 3D scan or label map in RAS+.

    Attributes:
        data: array (x, y, z); float32 for images, uint8 for label maps (int32 for values as read).
        affine: 4x4, voxel index to world coordinates in mm (RAS+).
        source: file it was read from, for error messages.
        user_axes: axis codes of the file, such as ``('L', 'P', 'S')``; written back by ``write``.
    """

    data: ImageArray | LabelMap
    affine: Affine
    source: Path | None = None
    user_axes: tuple[str, str, str] = ("R", "A", "S")

    @property
    def shape(self) -> Shape:
        x, y, z = self.data.shape
        return (x, y, z)

    @property
    def spacing_mm(self) -> Triple:
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return (x, y, z)

    @property
    def voxel_volume_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def with_data(self, data: ImageArray | LabelMap) -> Volume:
        """The same place in the patient with other values."""
        if data.shape != self.data.shape:
            raise ValueError(f"shape {data.shape} does not fit the grid {self.data.shape}")
        return replace(self, data=data)

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Write as NIfTI on the user's axes, atomically; ``.nii.gz`` is compressed (level 1)."""
        back = orientations.ornt_transform(
            orientations.axcodes2ornt(("R", "A", "S")), orientations.axcodes2ornt(self.user_axes)
        )
        data = orientations.apply_orientation(self.data, back)
        affine = self.affine @ orientations.inv_ornt_aff(back, self.data.shape)
        image = nib.Nifti1Image(np.ascontiguousarray(data), affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        if _farthest_corner_mm(image.get_qform() - affine, data.shape) > GRID_TOLERANCE_MM:
            # A quaternion in float32 cannot say this affine (next to 180 degrees, slight shear).
            image.set_qform(affine, code=0)
        payload = image.to_bytes()
        if path.name.endswith(".gz"):
            payload = gzip.compress(payload, compresslevel=1, mtime=0)
        write_atomically(path, payload, durable=durable)


def write_atomically(path: Path, payload: bytes, *, durable: bool = True) -> None:
    """Write to a temporary name beside ``path``, fsync, rename: a reader sees all or nothing.

    Without ``durable`` there is no fsync, which takes half the time of many small files; for what
    can be made again and lies in a folder that appears as a whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as stream:
        stream.write(payload)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(temporary, path)


def read_volume(path: Path, *, name: str | None = None) -> Volume:
    """Read an image as float32 in RAS+.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        name: how error messages call it; the file name by default.

    Raises:
        InputError: corrupt stream, not 3D, RGB or complex, sheared or singular affine, qform and
            sform that disagree, NaN or Inf, constant image.
    """
    name = name or path.name
    volume = _read_canonical(path, name)
    with np.errstate(over="ignore"):
        image = volume.data.astype(np.float32)
    require_usable_image(image, name=name)
    return volume.with_data(image)


def require_usable_image(image: ImageArray, *, name: str) -> None:
    """An image must be finite and not constant.

    Raises:
        InputError: with the place of the first NaN or Inf, or the constant value.
    """
    bad = ~np.isfinite(image)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name}: {int(bad.sum())} voxels are NaN or Inf, the first at {place}. "
            "Export the scan again or replace them."
        )
    if image.max() == image.min():
        raise InputError(
            f"{name}: every voxel has the value {image.flat[0]:g}. "
            "An empty image cannot be used; export it again or remove the case."
        )


def read_label_map(path: Path, *, n_classes: int, name: str | None = None) -> Volume:
    """Read a mask as uint8 in RAS+.

    Args:
        n_classes: number of classes with background; larger values are refused.

    Raises:
        InputError: as ``read_volume``, and for fractional or unknown label values.
    """
    name = name or path.name
    mask = read_mask_values(path, name=name)
    values, counts = np.unique(mask.data, return_counts=True)
    unknown = (values < 0) | (values >= n_classes)
    if unknown.any():
        listed = ", ".join(
            f"{int(v)} ({int(c)} voxels)"
            for v, c in zip(values[unknown][:5], counts[unknown][:5], strict=True)
        )
        raise InputError(
            f"{name}: the mask holds values that dataset.json does not name: {listed}. "
            f"Known are 0 to {n_classes - 1}; remap the mask or add the classes."
        )
    return mask.with_data(mask.data.astype(np.uint8))


def read_mask_values(path: Path, *, name: str | None = None) -> Volume:
    """Read a mask as int32 in RAS+ with the values that it holds, whatever they mean.

    Raises:
        InputError: as ``read_volume``, and for fractional values.
    """
    name = name or path.name
    volume = _read_canonical(path, name)
    rounded = np.rint(volume.data)
    if not np.all(np.abs(volume.data - rounded) < 1e-3):
        raise InputError(
            f"{name}: the mask holds fractional values such as "
            f"{float(volume.data[np.abs(volume.data - rounded) >= 1e-3][0]):g}. Is it an image? "
            "Masks are integers; export it without interpolation."
        )
    return volume.with_data(rounded.astype(np.int32))


def require_same_grid(image: Volume, mask: Volume, *, name: str) -> None:
    """Image and mask must lie on each other, in mm and not by index.

    Raises:
        InputError: when a corner of the volume differs by more than ``GRID_TOLERANCE_MM``.
    """
    distance = corner_distance_mm(image, mask)
    if image.shape != mask.shape or distance > GRID_TOLERANCE_MM:
        raise InputError(
            f"{name}: image is {_describe(image)} but its mask is {_describe(mask)}; corners lie "
            f"{distance:.3g} mm apart. Re-export the mask on the image's grid."
        )


def corner_distance_mm(a: Volume, b: Volume) -> float:
    """Greatest distance between the eight corners of two volumes in world space, in mm."""
    apart = _corners(a.affine, a.shape) - _corners(b.affine, b.shape)
    return float(np.linalg.norm(apart, axis=1).max())


def _corners(affine: Affine, shape: Shape) -> np.ndarray:
    last = np.array(shape) - 1
    index = np.array(np.meshgrid(*[(0, n) for n in last], indexing="ij")).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).T


def _farthest_corner_mm(difference: Affine, shape: Shape) -> float:
    """Greatest displacement of a corner by the difference of two affines, in mm."""
    return float(np.linalg.norm(_corners(difference, shape), axis=1).max())


def _describe(volume: Volume) -> str:
    size = "x".join(str(n) for n in volume.shape)
    spacing = "x".join(f"{s:.4g}" for s in volume.spacing_mm)
    return f"{size} voxels of {spacing} mm ({''.join(volume.user_axes)})"


def to_canonical(data: np.ndarray, affine: Affine, *, source: Path | None = None) -> Volume:
    """An array in any orientation as a volume in closest-canonical RAS+; values stay."""
    orientation = nib.io_orientation(affine)
    x, y, z = orientations.ornt2axcodes(orientation)
    canonical = affine @ orientations.inv_ornt_aff(orientation, data.shape)
    data = np.ascontiguousarray(orientations.apply_orientation(data, orientation))
    return Volume(data, canonical.astype(np.float64), source, (x, y, z))


def _read_canonical(path: Path, name: str) -> Volume:
    image, data = _parse_nifti(_read_verified(path, name), name)
    if image.get_data_dtype().fields is not None or image.get_data_dtype().kind == "c":
        raise InputError(
            f"{name}: voxels are RGB or complex. Export one channel (the magnitude) as 3D NIfTI."
        )
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(
            f"{name}: the file has {len(shape)} dimensions {tuple(image.shape)}, not 3. "
            "Choose one channel or phase and save it as its own file."
        )
    _check_affine(image, name)
    return to_canonical(data.reshape(shape), image.affine, source=path)


def _parse_nifti(payload: bytes, name: str) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Header and voxels; nibabel has a kind of exception for each thing that can be wrong."""
    # 348 or 540, in either byte order, is the size of the header and tells NIfTI-1 from NIfTI-2.
    is_nifti2 = payload[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
    try:
        image = (nib.Nifti2Image if is_nifti2 else nib.Nifti1Image).from_bytes(payload)
        data = np.asanyarray(image.dataobj)
        image.get_qform(coded=True)
    except (HeaderDataError, ImageFileError, WrapStructError, OSError, ValueError) as error:
        raise InputError(
            f"{name}: this is not a whole NIfTI file ({error}). "
            "Copy it again from its source, or convert it again from DICOM."
        ) from error
    spacing = type(image.header)(payload[: image.header.sizeof_hdr], check=False)["pixdim"][1:4]
    if not image.header["sform_code"] and not np.all(spacing > 0):
        raise InputError(
            f"{name}: the header gives a voxel size of {spacing.tolist()} mm. "
            "Convert the scan again from DICOM."
        )
    return image, data


def _check_affine(image: nib.Nifti1Image, name: str) -> None:
    affine = image.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.all(np.isfinite(affine)) or np.any(spacing < 1e-6):
        raise InputError(
            f"{name}: the affine is not usable (spacing {spacing.tolist()} mm). "
            "Convert the scan again from DICOM."
        )
    if spacing.max() > 100:
        raise InputError(
            f"{name}: a voxel is {spacing.max():g} mm long; the spacing seems to be in µm. "
            "Write it in mm."
        )
    axes = affine[:3, :3] / spacing
    shear = np.abs(axes.T @ axes - np.eye(3)).max()
    if shear > SHEAR_TOLERANCE:
        raise InputError(
            f"{name}: the affine is sheared (axes' cosine {shear:.3g}, a gantry tilt?). "
            "Resample the scan to an orthogonal grid first."
        )
    qform, qcode = image.get_qform(coded=True)
    sform, scode = image.get_sform(coded=True)
    if qcode and scode:
        apart = _farthest_corner_mm(qform - sform, image.shape[:3])
        if apart > QFORM_TOLERANCE_MM:
            raise InputError(
                f"{name}: qform and sform disagree by {apart:.3g} mm, so the scan has two places. "
                "Decide which is right and write it to both."
            )


def _read_verified(path: Path, name: str) -> bytes:
    """All bytes of a file; a gzip stream is read to its end, which checks its CRC.

    nibabel stops before the trailer and so never sees a wrong CRC.
    """
    if not path.is_file():
        raise InputError(f"{name}: there is no file {path}. Check the path.")
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{name}: {path} is damaged ({error}). Copy it again from its source."
        ) from error
