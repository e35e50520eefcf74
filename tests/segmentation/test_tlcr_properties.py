"""What TLCR holds for any scan: drawn by hypothesis, small so that hundreds of them are quick."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel import orientations
from scipy.spatial.transform import Rotation

from neonet3d.cohort.geometry import resample_label_map
from neonet3d.cohort.volume import (
    Volume,
    corner_distance_mm,
    read_label_map,
    read_volume,
    to_canonical,
)
from neonet3d.config import RoiConfig
from neonet3d.segmentation.crop_record import CropRecord, read_record, write_record
from neonet3d.segmentation.tlcr import RoiCrop, crop_to_lesions, crop_to_tumour
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))
LIVER, TUMOUR = 1, 2
RADIUS, RADIUS_FINER = 7.0, 4.0  # least, in voxels; the second where the scan is nowhere coarser
APART = 3  # voxels between lesions that closing by one voxel does not join
STORED = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
quick = settings(
    max_examples=60,
    deadline=None,  # the machine may be busy
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Scan:
    """An image, its mask, and the lowest and highest voxel of each lesion that was drawn."""

    image: Volume
    mask: Volume
    lesions: tuple[tuple[np.ndarray, np.ndarray], ...]

    def __repr__(self) -> str:
        return f"Scan({self.image.shape}, {self.image.affine.tolist()}, {self.lesions})"


def triples(elements: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(elements, elements, elements)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Anisotropic and oblique: up to 40 degrees about any axis, so that RAS+ is no toss-up."""
    spacing_mm = draw(triples(st.floats(0.6, 6.0)))
    axis = np.array(draw(triples(st.floats(-1.0, 1.0))))
    turn = np.deg2rad(draw(st.floats(0.0, 40.0))) * axis / max(1.0, np.linalg.norm(axis))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(turn).as_matrix() * spacing_mm
    affine[:3, 3] = draw(triples(st.floats(-200.0, 200.0)))
    return affine


@st.composite
def scans(draw: st.DrawFn, *, most: int = 3) -> Scan:
    """Boxes of tumour in a body of liver, anywhere, at the borders too."""
    shape = draw(st.tuples(st.integers(12, 36), st.integers(5, 30), st.integers(5, 30)))
    mask = np.full(shape, LIVER, np.uint8)
    lesions = []
    start = 0
    for _ in range(draw(st.integers(1, most))):
        first, last = [0, 0, 0], [0, 0, 0]
        for axis, n in enumerate(shape):
            low = start if axis == 0 else 0
            first[axis] = draw(st.integers(low, n - 1))
            last[axis] = draw(st.integers(first[axis], min(n - 1, first[axis] + 12)))
        box = tuple(slice(a, b + 1) for a, b in zip(first, last, strict=True))
        mask[box] = TUMOUR
        lesions.append((np.array(first), np.array(last)))
        start = last[0] + 1 + APART
        if start >= shape[0]:
            break
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    image = (100 * mask + rng.normal(0, 5, shape)).astype(np.float32)
    affine = draw(affines())
    return Scan(Volume(image, affine), Volume(mask, affine), tuple(lesions))


@st.composite
def rois(draw: st.DrawFn) -> RoiConfig:
    """Windows from 20 to 100 mm, smaller and larger than scans and lesions."""
    shape = draw(st.tuples(*[st.integers(8, 24)] * 3))
    extent_mm = np.array(draw(triples(st.floats(20.0, 100.0))))
    return RoiConfig(
        around="tumour",
        shape=shape,
        spacing_mm=tuple((extent_mm / shape).tolist()),
        margin_mm=draw(st.floats(0.0, 15.0)),
        minimum_volume_mm3=0,
    )


def faces_mm(record: CropRecord) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper faces of the window, in mm along the scan's axes from its first centre."""
    low = np.array(record.first_mm) - np.array(record.spacing_mm) / 2
    return low, low + record.window.grid.extent_mm


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@quick
@given(scan=scans(), roi=rois())
def test_each_lesion_is_in_its_window_with_its_margin(scan: Scan, roi: RoiConfig) -> None:
    """All of the margin that the scan has; the window leaves the scan only where it is larger."""
    crops = crop_to_lesions(scan.image, scan.mask, SCHEMA, roi)
    spacing_mm = np.array(scan.image.spacing_mm)
    scan_low, scan_high = -spacing_mm / 2, (np.array(scan.image.shape) - 0.5) * spacing_mm
    drawn = sorted(scan.lesions, key=lambda ends: -np.prod(ends[1] - ends[0] + 1))
    assert [crop.record.lesion for crop in crops] == list(range(1, len(drawn) + 1))
    for crop, (first, last) in zip(crops, drawn, strict=True):
        # Of lesions of one size the first in the scan comes first, here and in sorted().
        low, high = faces_mm(crop.record)
        asked_low = (first - 0.5) * spacing_mm - roi.margin_mm
        asked_high = (last + 0.5) * spacing_mm + roi.margin_mm
        assert (low <= np.maximum(asked_low, scan_low) + 1e-6).all()
        assert (high >= np.minimum(asked_high, scan_high) - 1e-6).all()
        fits = high - low <= scan_high - scan_low
        assert (low[fits] >= scan_low[fits] - 1e-6).all()
        assert (high[fits] <= scan_high[fits] + 1e-6).all()
        # Widened on all axes alike, and no further than the lesion needs.
        assert np.allclose(crop.record.spacing_mm, np.array(roi.spacing_mm) * crop.record.scale)
        needed = (asked_high - asked_low) / (np.array(roi.shape) * roi.spacing_mm)
        assert crop.record.scale == pytest.approx(max(1.0, needed.max()))
        at_border = (first == 0) | (last == np.array(scan.image.shape) - 1)
        assert crop.record.touches_border == at_border.any()


@quick
@given(scan=scans(), roi=rois())
def test_the_first_of_all_lesions_is_the_index_lesion(scan: Scan, roi: RoiConfig) -> None:
    crops = crop_to_lesions(scan.image, scan.mask, SCHEMA, roi)
    index = crop_to_tumour(scan.image, scan.mask, SCHEMA, roi)
    assert index.record == crops[0].record
    np.testing.assert_array_equal(index.image.data, crops[0].image.data)
    np.testing.assert_array_equal(index.label_map.data, crops[0].label_map.data)
    volumes = [crop.record.lesion_volume_mm3 for crop in crops]
    assert volumes == sorted(volumes, reverse=True)
    assert {crop.record.n_lesions for crop in crops} == {len(scan.lesions)}


@dataclass(frozen=True)
class Drawing:
    """An ellipsoid drawn in the ROI of a scan."""

    crop: RoiCrop
    mask: np.ndarray

    def __repr__(self) -> str:
        return f"Drawing({self.crop.record}, {int(self.mask.sum())} voxels)"


@st.composite
def drawings(draw: st.DrawFn, *, finer: bool) -> Drawing:
    """Ellipsoids that both grids can show, anywhere where ROI and scan overlap.

    Radii are RADIUS voxels or more, along each axis, of the grid that is coarser there.
    """
    affine = draw(affines())
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    ratio = np.array(draw(triples(st.floats(1.0 if finer else 0.4, 2.5))))
    roi_mm = spacing_mm * ratio
    least_mm = (RADIUS_FINER if finer else RADIUS) * np.maximum(spacing_mm, roi_mm)
    radius_mm = least_mm * draw(triples(st.floats(1.0, 1.5)))
    spare = draw(st.tuples(triples(st.integers(2, 8)), triples(st.integers(2, 8))))
    # Room for the ellipsoid in the scan, and in the ROI, wherever that comes to lie.
    shape = np.ceil(2 * radius_mm / spacing_mm).astype(int) + spare[0]
    roi = RoiConfig(
        around="tumour",
        shape=tuple((np.ceil(2 * radius_mm / roi_mm).astype(int) + spare[1]).tolist()),
        spacing_mm=tuple(roi_mm.tolist()),
        margin_mm=0,
        minimum_volume_mm3=0,
    )
    scan = Volume(np.arange(shape.prod(), dtype=np.float32).reshape(shape), affine)
    lesion = np.zeros(shape, np.uint8)
    lesion[tuple(draw(st.integers(0, int(n) - 1)) for n in shape)] = TUMOUR
    crop = crop_to_tumour(scan, scan.with_data(lesion), SCHEMA, roi)
    low, high = faces_mm(crop.record)
    low, high = np.maximum(low, -spacing_mm / 2), np.minimum(high, (shape - 0.5) * spacing_mm)
    where = np.array(draw(triples(st.floats(0.0, 1.0))))
    centre_mm = low + radius_mm + where * (high - low - 2 * radius_mm)
    middle = (centre_mm - crop.record.first_mm) / crop.record.spacing_mm
    axes = np.meshgrid(*(np.arange(n) for n in roi.shape), indexing="ij")
    away = (np.stack(axes, -1) - middle) * crop.record.spacing_mm / radius_mm
    return Drawing(crop, ((away**2).sum(-1) <= 1).astype(np.uint8))


def there_and_back(drawing: Drawing) -> float:
    """Dice of a mask that went from the ROI to the scan, and was cropped again."""
    record = drawing.crop.record
    placed = drawing.crop.place_back(drawing.mask)
    assert placed.shape == record.scan_shape
    again = resample_label_map(placed, record.window, n_classes=2)
    return dice(again == 1, drawing.mask == 1)


@quick
@given(drawings(finer=False))
def test_a_mask_goes_to_the_scan_and_comes_back(drawing: Drawing) -> None:
    """On any two grids. What is smaller loses more: a border is known to a fraction of a voxel."""
    assert there_and_back(drawing) >= 0.95


@quick
@given(drawings(finer=True))
def test_a_smaller_mask_comes_back_from_a_finer_scan(drawing: Drawing) -> None:
    assert there_and_back(drawing) >= 0.95


@quick
@given(scan=scans(most=1), roi=rois())
def test_what_is_placed_back_lies_under_the_window(scan: Scan, roi: RoiConfig) -> None:
    """A mask that fills the ROI fills the voxels of the scan whose centres it covers."""
    crop = crop_to_tumour(scan.image, scan.mask, SCHEMA, roi)
    placed = crop.place_back(np.ones(crop.image.shape, np.uint8))
    low, high = faces_mm(crop.record)
    covered = np.ones(scan.image.shape, bool)
    doubtful = ~covered
    for axis in range(3):
        centres = np.arange(scan.image.shape[axis]) * scan.image.spacing_mm[axis]
        along = [-1 if i == axis else 1 for i in range(3)]
        covered &= ((low[axis] < centres) & (centres < high[axis])).reshape(along)
        near = np.minimum(abs(centres - low[axis]), abs(centres - high[axis])) < 1e-6
        doubtful |= near.reshape(along)
    assert ((placed.data == 1) == covered)[~doubtful].all()


@quick
@given(scan=scans(), roi=rois())
def test_a_record_says_all_that_the_crop_knows(
    scan: Scan, roi: RoiConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Written and read again it is the same, and places masks back to the same voxels."""
    crop = crop_to_lesions(scan.image, scan.mask, SCHEMA, roi)[-1]
    folder = tmp_path_factory.mktemp("record")
    write_record(folder, "a", crop.record)
    record = read_record(folder, "a")
    assert record == crop.record
    assert record is not None
    assert record.window == crop.record.window
    np.testing.assert_allclose(record.window.affine(record.empty_scan()), crop.image.affine)
    placed = record.place_back(crop.label_map.data)
    np.testing.assert_array_equal(placed.affine, scan.image.affine)
    np.testing.assert_array_equal(placed.data, crop.place_back(crop.label_map.data).data)


def stored_as(volume: Volume, orientation: np.ndarray, path: Path) -> Path:
    """Write an RAS+ volume with its axes in another order and direction."""
    data = orientations.apply_orientation(volume.data, orientation)
    affine = volume.affine @ orientations.inv_ornt_aff(orientation, volume.shape)
    image = nib.Nifti1Image(np.ascontiguousarray(data), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    path.write_bytes(image.to_bytes())
    return path


def crop_of_files(image: Path, mask: Path, roi: RoiConfig) -> RoiCrop:
    return crop_to_tumour(read_volume(image), read_label_map(mask, n_classes=3), SCHEMA, roi)


@quick
@given(scan=scans(), roi=rois(), data=st.data())
def test_the_orientation_of_the_files_does_not_matter(
    scan: Scan, roi: RoiConfig, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Image and mask in any of the 48 orientations, each in its own: the same crop to the bit."""
    folder = tmp_path_factory.mktemp("stored")
    upright, turned, of_mask = STORED[0], *(data.draw(st.sampled_from(STORED)) for _ in range(2))
    files = [
        stored_as(scan.image, ornt, folder / f"image{i}.nii")
        for i, ornt in enumerate((upright, turned))
    ]
    masks = [
        stored_as(scan.mask, ornt, folder / f"mask{i}.nii")
        for i, ornt in enumerate((upright, of_mask))
    ]
    first, again = (crop_of_files(*pair, roi) for pair in zip(files, masks, strict=True))
    np.testing.assert_array_equal(again.image.data, first.image.data)
    np.testing.assert_array_equal(again.label_map.data, first.label_map.data)
    # The files' affines are float32.
    np.testing.assert_allclose(again.image.affine, first.image.affine, atol=1e-3)
    same = {"scan_affine", "scan_axes", "case"}
    assert again.record.model_dump(exclude=same) == first.record.model_dump(exclude=same)


@pytest.mark.parametrize(
    "orientation", STORED, ids=lambda o: "".join(f"{int(a)}{'-' if f < 0 else '+'}" for a, f in o)
)
def test_each_of_the_48_orientations(orientation: np.ndarray, tmp_path: Path) -> None:
    """One oblique scan; and what is placed back and written is on the file's own axes."""
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (8, -11, 17), degrees=True).as_matrix() * (
        1,
        1.5,
        3,
    )
    mask = np.full((20, 18, 12), LIVER, np.uint8)
    mask[3:9, 4:9, 2:6] = TUMOUR
    image = Volume((100 * mask + rng.normal(0, 5, mask.shape)).astype(np.float32), affine)
    roi = RoiConfig(
        around="tumour",
        shape=(12, 10, 8),
        spacing_mm=(1.5, 1.5, 2.5),
        margin_mm=3,
        minimum_volume_mm3=0,
    )
    files = [
        stored_as(image, ornt, tmp_path / f"image{i}.nii")
        for i, ornt in enumerate((STORED[0], orientation))
    ]
    masks = [
        stored_as(image.with_data(mask), ornt, tmp_path / f"mask{i}.nii")
        for i, ornt in enumerate((STORED[0], orientation))
    ]
    first, again = (crop_of_files(*pair, roi) for pair in zip(files, masks, strict=True))
    np.testing.assert_array_equal(again.image.data, first.image.data)
    np.testing.assert_array_equal(again.label_map.data, first.label_map.data)
    again.place_back(again.label_map.data).write(tmp_path / "back.nii")
    written, file = nib.load(tmp_path / "back.nii"), nib.load(files[1])
    assert written.shape == file.shape
    np.testing.assert_allclose(written.affine, file.affine, atol=1e-4)


@quick
@given(scan=scans(), roi=rois(), orientation=st.sampled_from(STORED))
def test_an_array_in_any_orientation_gives_the_same_crop(
    scan: Scan, roi: RoiConfig, orientation: np.ndarray
) -> None:
    """In memory, brought to RAS+ without a file: here the affine is not rounded either."""
    affine = scan.image.affine @ orientations.inv_ornt_aff(orientation, scan.image.shape)
    image, mask = (
        to_canonical(orientations.apply_orientation(volume.data, orientation), affine)
        for volume in (scan.image, scan.mask)
    )
    crop = crop_to_tumour(scan.image, scan.mask, SCHEMA, roi)
    again = crop_to_tumour(image, mask, SCHEMA, roi)
    np.testing.assert_array_equal(again.image.data, crop.image.data)
    np.testing.assert_array_equal(again.label_map.data, crop.label_map.data)
    assert corner_distance_mm(again.image, crop.image) < 1e-9
