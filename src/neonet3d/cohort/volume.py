"""A volume: an array, where it lies in the patient, and the grid that it came from.

Inside the package every array is closest-canonical RAS+. What is written goes back to the
orientation that the user brought. Reading verifies: the whole gzip stream with its CRC, a usable
affine, finite values.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float
from nibabel import orientations

from neonet3d.cohort.label_names import LABEL_INTENT, label_table
from neonet3d.cohort.nifti import NiftiFile, corners_mm, farthest_corner_mm, read_nifti
from neonet3d.cohort.notebook import facts_html, slices_html
from neonet3d.cohort.stream import deflate
from neonet3d.errors import InputError
from neonet3d.types import Affine, ImageArray, LabelMap, LabelSchema, Shape, Triple

GRID_TOLERANCE_MM = 1e-3  # image and mask may differ by less than this at a corner
LABEL_TOLERANCE = 1e-3  # how far from a whole number a mask's value may be
MOST_CLASSES = 100  # a mask with more values is an image


@dataclass(frozen=True)
class Volume:
    """A 3D scan or label map in RAS+.

    Attributes:
        data: array (x, y, z); float32 for images, uint8 for label maps.
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
    def extent_mm(self) -> Float[np.ndarray, " 3"]:
        """From the outer face of the first voxel to that of the last."""
        return np.array(self.shape) * np.array(self.spacing_mm)

    @property
    def voxel_volume_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def _repr_html_(self) -> str:
        """Middle slices, for notebooks."""
        spacing = " x ".join(f"{s:.3g}" for s in self.spacing_mm)
        size = " x ".join(map(str, self.shape))
        facts = {"": f"{size} voxels of {spacing} mm", "type": self.data.dtype}
        return slices_html(self.data, self.spacing_mm) + facts_html(facts)

    def with_data(self, data: ImageArray | LabelMap) -> Volume:
        """The same place in the patient with other values."""
        if data.shape != self.data.shape:
            raise ValueError(f"shape {data.shape} does not fit the grid {self.data.shape}")
        return replace(self, data=data)

    def write(
        self,
        path: Path,
        *,
        durable: bool = True,
        schema: LabelSchema | None = None,
        scale: float | None = None,
    ) -> None:
        """Write as NIfTI on the user's axes, atomically; ``.nii.gz`` is compressed (level 1).

        Args:
            durable: see ``write_atomically``.
            schema: classes of a label map; their names go into the header, for viewers.
            scale: what a reader multiplies the stored numbers by (``scl_slope``).
        """
        back = orientations.ornt_transform(
            orientations.axcodes2ornt(("R", "A", "S")), orientations.axcodes2ornt(self.user_axes)
        )
        data = orientations.apply_orientation(self.data, back)
        affine = self.affine @ orientations.inv_ornt_aff(back, self.data.shape)
        image = nib.Nifti1Image(np.ascontiguousarray(data), affine)
        image.header.set_xyzt_units("mm")
        if scale is not None:
            image.header.set_slope_inter(scale, 0)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        if farthest_corner_mm(image.get_qform() - affine, data.shape) > GRID_TOLERANCE_MM:
            # A quaternion in float32 cannot say this affine (next to 180 degrees, slight shear).
            image.set_qform(affine, code=0)
        if schema is not None:
            code, name = LABEL_INTENT
            image.header.set_intent(code, name=name)
            image.header.extensions.append(label_table(schema))
        payload = image.to_bytes()
        if path.name.endswith(".gz"):
            payload = deflate(payload)
        write_atomically(path, payload, durable=durable)


def write_atomically(path: Path, payload: bytes, *, durable: bool = True) -> None:
    """Write to a temporary name beside ``path``, fsync, rename: a reader sees all or nothing.

    Without ``durable`` there is no fsync, which takes half the time of many small files; for what
    can be made again and lies in a folder that appears as a whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(payload)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:  # half a file takes room on a full disk
        temporary.unlink(missing_ok=True)
        raise


def read_volume(path: Path, *, name: str | None = None) -> Volume:
    """Read an image as float32 in RAS+.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        name: how error messages call it; the file name by default.

    Raises:
        InputError: corrupt stream, not 3D, RGB or complex, sheared or singular affine, NaN or Inf,
            constant image.
    """
    name = name or path.name
    return image_volume(read_nifti(path, name), path, name)


def image_volume(file: NiftiFile, path: Path, name: str) -> Volume:
    """The image of a file that was read: float32 in RAS+; raises as ``read_volume``."""
    with np.errstate(over="ignore"):
        volume = to_canonical(file.data, file.image.affine, dtype=np.float32, source=path)
    require_usable_image(volume.data, name=name, as_stored=file.data)
    return volume


def require_usable_image(
    image: ImageArray, *, name: str, as_stored: np.ndarray | None = None
) -> None:
    """An image must be finite and not constant.

    Args:
        as_stored: the same voxels on the axes of their file, for the place of the first NaN.

    Raises:
        InputError: with the number and place of NaN and Inf, or the constant value.
    """
    low, high = image.min(), image.max()  # one NaN makes both of them NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        with np.errstate(over="ignore"):
            bad = ~np.isfinite((image if as_stored is None else as_stored).astype(np.float32))
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{name}: {int(bad.sum())} voxels are NaN or Inf, the first at {place}. "
            "Export the scan again or replace them."
        )
    if low == high:
        raise InputError(
            f"{name}: every voxel has the value {low:g}. "
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
    return label_volume(read_nifti(path, name), path, name, n_classes=n_classes)


def label_volume(file: NiftiFile, path: Path, name: str, *, n_classes: int) -> Volume:
    """The mask of a file that was read: uint8 in RAS+; raises as ``read_label_map``."""
    values, counts = _histogram(file.data)
    rounded, fractional = _rounded(values)
    if len(values) > MOST_CLASSES and (fractional.any() or len(values) > n_classes):
        raise InputError(
            f"{name}: the mask holds {len(values)} different values from {values[0]:g} to "
            f"{values[-1]:g}, so it is an image. Put the mask in its place."
        )
    _refuse_fractions(values[fractional], counts[fractional], name)
    unknown = (rounded < 0) | (rounded >= n_classes)
    if unknown.any():
        raise InputError(
            f"{name}: the mask holds values that dataset.json does not name: "
            f"{_counted(rounded[unknown], counts[unknown])}. "
            f"{_remap(rounded, unknown, n_classes)}"
        )
    return _whole_numbers(file, path, np.uint8)


def read_mask_values(path: Path, *, name: str | None = None) -> Volume:
    """Read a mask as int32 in RAS+ with the values that it holds, whatever they mean.

    Raises:
        InputError: as ``read_volume``, and for fractional values.
    """
    name = name or path.name
    file = read_nifti(path, name)
    values, counts = _histogram(file.data)
    _, fractional = _rounded(values)
    _refuse_fractions(values[fractional], counts[fractional], name)
    return _whole_numbers(file, path, np.int32)


def _rounded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest whole numbers, and which values are none (NaN and Inf too)."""
    with np.errstate(invalid="ignore"):
        rounded = np.rint(values.astype(np.float64))
        return rounded, ~(np.abs(values - rounded) < LABEL_TOLERANCE)


def _refuse_fractions(values: np.ndarray, counts: np.ndarray, name: str) -> None:
    if len(values):
        raise InputError(
            f"{name}: the mask holds fractional values: {_counted(values, counts)}. "
            "Masks are whole numbers; export it again without interpolation."
        )


def _whole_numbers(file: NiftiFile, path: Path, dtype: type[np.generic]) -> Volume:
    data = file.data if file.data.dtype.kind in "iub" else np.rint(file.data)
    return to_canonical(data, file.image.affine, dtype=dtype, source=path)


def _histogram(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that occur, ascending, and how often; bytes are counted without sorting them."""
    if data.dtype == np.uint8:
        counts = np.bincount(data.ravel(order="K"), minlength=256)
        values = np.flatnonzero(counts)
        return values, counts[values]
    return np.unique(data, return_counts=True)


def _counted(values: np.ndarray, counts: np.ndarray) -> str:
    listed = ", ".join(
        f"{v:g} ({int(c)} voxels)" for v, c in zip(values[:5], counts[:5], strict=True)
    )
    return listed + (f" and {len(values) - 5} more" if len(values) > 5 else "")


def _remap(values: np.ndarray, unknown: np.ndarray, n_classes: int) -> str:
    """A mend for label values that are not 0, 1, 2, ...: in their order, where that fits."""
    if len(values) <= n_classes and values[0] == 0:
        pairs = ", ".join(f"{int(v)} -> {i}" for i, v in enumerate(values) if int(v) != i)
        return f"Known are 0 to {n_classes - 1}; remap the mask, in their order {pairs}."
    ids = ", ".join(f"{int(v)}" for v in values[unknown][:5])
    return f"Known are 0 to {n_classes - 1}; remap {ids} in the mask or add the classes."


def require_same_grid(
    image: Volume, mask: Volume, *, name: str, called: tuple[str, str] = ("image", "its mask")
) -> None:
    """Image and mask must lie on each other, in mm and not by index.

    Args:
        name: of the case.
        called: what the two are, where they are not an image and its mask.

    Raises:
        InputError: when a corner of the volume differs by more than ``GRID_TOLERANCE_MM``.
    """
    distance = corner_distance_mm(image, mask)
    if image.shape != mask.shape or distance > GRID_TOLERANCE_MM:
        raise InputError(
            f"{name}: {called[0]} is {_describe(image)} but {called[1]} is {_describe(mask)}; "
            f"corners lie {distance:.3g} mm apart. Re-export the mask on the image's grid."
        )


def corner_distance_mm(a: Volume, b: Volume) -> float:
    """Greatest distance between the eight corners of two volumes in world space, in mm."""
    apart = corners_mm(a.affine, a.shape) - corners_mm(b.affine, b.shape)
    return float(np.linalg.norm(apart, axis=1).max())


def _describe(volume: Volume) -> str:
    size = "x".join(str(n) for n in volume.shape)
    spacing = "x".join(f"{s:.4g}" for s in volume.spacing_mm)
    return f"{size} voxels of {spacing} mm ({''.join(volume.user_axes)})"


def to_canonical(
    data: np.ndarray,
    affine: Affine,
    *,
    dtype: type[np.generic] | None = None,
    source: Path | None = None,
) -> Volume:
    """An array in any orientation as a volume in closest-canonical RAS+.

    Turned, converted (``dtype``; None keeps it) and laid out in one pass.
    """
    orientation = nib.io_orientation(affine)
    x, y, z = orientations.ornt2axcodes(orientation)
    canonical = affine @ orientations.inv_ornt_aff(orientation, data.shape)
    turned = np.ascontiguousarray(orientations.apply_orientation(data, orientation), dtype=dtype)
    return Volume(turned, canonical.astype(np.float64), source, (x, y, z))
