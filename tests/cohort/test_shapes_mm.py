"""Spheres and tubes in mm: on oblique, anisotropic, left-handed and permuted grids, from a file
to another grid and back to the file's own."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations
from scipy import ndimage
from scipy.spatial.transform import Rotation

from neonet3d.cohort.geometry import (
    Grid,
    Window,
    place_label_map_back,
    resample_image,
    resample_label_map,
)
from neonet3d.cohort.volume import Volume, corner_distance_mm, read_label_map, read_volume
from neonet3d.types import Affine, Shape, Triple

SHAPE: Shape = (70, 64, 44)
SPACING_MM: Triple = (0.8, 1.0, 1.5)
CENTRE_MM = np.array([-31.0, 17.0, 42.0])
RADIUS_MM = 15.0
ALL_ORIENTATIONS = [
    np.column_stack([axes, flips])
    for axes in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]


def affine_of(turn: Rotation, spacing_mm: Triple, flips: Triple, shape: Shape) -> Affine:
    """The middle voxel lies on ``CENTRE_MM``."""
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() * (np.array(spacing_mm) * flips)
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


GRIDS = {
    "straight": affine_of(Rotation.identity(), SPACING_MM, (1, 1, 1), SHAPE),
    "oblique": affine_of(
        Rotation.from_euler("xyz", [20, -10, 35], degrees=True), SPACING_MM, (1, 1, 1), SHAPE
    ),
    "left-handed": affine_of(
        Rotation.from_euler("xyz", [-15, 25, 10], degrees=True), SPACING_MM, (-1, 1, 1), SHAPE
    ),
    "anisotropic": affine_of(
        Rotation.from_euler("xyz", [30, 5, -20], degrees=True), (0.7, 0.7, 2.1), (1, -1, -1), SHAPE
    ),
}


def world_mm(affine: Affine, shape: Shape) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].T + affine[:3, 3]


def sphere_distance_mm(points: np.ndarray) -> np.ndarray:
    """To the surface; negative inside."""
    return np.linalg.norm(points - CENTRE_MM, axis=-1) - RADIUS_MM


def tube_distance_mm(points: np.ndarray) -> np.ndarray:
    """To the surface of a tube of 8 mm that runs through the centre, across every axis."""
    along = np.array([1.0, 2.0, 2.0]) / 3
    r = points - CENTRE_MM
    return np.linalg.norm(r - (r @ along)[..., None] * along, axis=-1) - 4.0


SHAPES = {"sphere": sphere_distance_mm, "tube": tube_distance_mm}


def surface_mm2(mask: np.ndarray, affine: Affine) -> float:
    """Area of a surface between voxels, by Crofton's count of crossings along the three axes.

    Where a surface has the unit normal n, unit area crosses lines along axis k |n_k| times; a
    sphere's mean of |n_k| is 1/2, so each axis' faces see half of its area.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    faces = [
        np.count_nonzero(np.diff(np.pad(mask, 1).astype(np.int8), axis=axis))
        * np.prod(np.delete(spacing, axis))
        for axis in range(3)
    ]
    return float(2 * np.mean(faces))


def boundary(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def write_file(path: Path, affine: Affine, kind: str) -> Path:
    distance = SHAPES[kind](world_mm(affine, SHAPE))
    nib.save(nib.Nifti1Image((distance <= 0).astype(np.uint8), affine), path)
    return path


@pytest.mark.parametrize("grid_name", GRIDS)
def test_a_sphere_in_a_file_has_its_volume_surface_and_place(
    tmp_path: Path, grid_name: str
) -> None:
    volume = read_label_map(
        write_file(tmp_path / "a.nii.gz", GRIDS[grid_name], "sphere"), n_classes=2
    )
    mask = volume.data == 1
    exact = 4 / 3 * np.pi * RADIUS_MM**3
    assert mask.sum() * volume.voxel_volume_mm3 == pytest.approx(exact, rel=0.01)
    assert surface_mm2(mask, volume.affine) == pytest.approx(4 * np.pi * RADIUS_MM**2, rel=0.03)
    middle = world_mm(volume.affine, volume.shape)[mask].mean(0)
    np.testing.assert_allclose(middle, CENTRE_MM, atol=0.05)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("grid_name", GRIDS)
@pytest.mark.parametrize(
    "target", [Grid((40, 40, 30), (1.6, 1.6, 2.2)), Grid((72, 70, 72), (0.7, 0.9, 0.9))], ids=str
)
def test_a_resampled_shape_lies_where_it_lay(
    tmp_path: Path, kind: str, grid_name: str, target: Grid
) -> None:
    """Every voxel of its boundary is within a voxel of the true surface, in mm in the patient."""
    source = read_label_map(write_file(tmp_path / "a.nii.gz", GRIDS[grid_name], kind), n_classes=2)
    window = Window.centred(source, target)
    mask = resample_label_map(source, window, n_classes=2) == 1
    affine = window.affine(source)
    points = world_mm(affine, target.shape)
    distance = SHAPES[kind](points)
    voxel = max(float(np.linalg.norm(s)) for s in (target.spacing_mm, source.spacing_mm))
    # Away from the rim of source and target, where a tube is cut.
    inner = np.linalg.norm(points - CENTRE_MM, axis=-1) < RADIUS_MM + 4
    edge = boundary(mask) & inner
    assert np.abs(distance[edge]).max() < voxel
    assert abs(distance[edge].mean()) < voxel / 2
    assert mask[inner & (distance < -voxel)].all()
    assert not mask[inner & (distance > voxel)].any()
    cell = float(np.prod(target.spacing_mm))
    exact = (distance[inner] <= 0).sum() * cell
    assert mask[inner].sum() * cell == pytest.approx(exact, rel=0.06)
    if kind == "sphere":
        np.testing.assert_allclose(points[mask].mean(0), CENTRE_MM, atol=0.1)
        assert surface_mm2(mask, affine) == pytest.approx(4 * np.pi * RADIUS_MM**2, rel=0.06)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("grid_name", GRIDS)
def test_a_mask_drawn_in_a_crop_is_written_on_the_users_grid(
    tmp_path: Path, kind: str, grid_name: str
) -> None:
    path = write_file(tmp_path / "a.nii.gz", GRIDS[grid_name], kind)
    source = read_label_map(path, n_classes=2)
    window = Window.centred(source, Grid((56, 56, 48), (1.1, 1.1, 1.4)))
    crop = resample_label_map(source, window, n_classes=2)
    back = place_label_map_back(crop, window, source, n_classes=2)
    source.with_data(back).write(tmp_path / "b.nii.gz")
    old, new = nib.load(path), nib.load(tmp_path / "b.nii.gz")
    assert new.shape == old.shape
    np.testing.assert_allclose(new.affine, old.affine, atol=1e-4)
    a, b = np.asarray(old.dataobj) == 1, np.asarray(new.dataobj) == 1
    # Compared in the patient, on the file's own voxels, inside the crop.
    covered = np.linalg.norm(world_mm(old.affine, SHAPE) - CENTRE_MM, axis=-1) < RADIUS_MM + 4
    a, b = a & covered, b & covered
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.95
    assert b.sum() == pytest.approx(a.sum(), rel=0.03)


@pytest.mark.parametrize("grid_name", GRIDS)
def test_an_image_is_read_at_the_same_place_in_the_patient(grid_name: str) -> None:
    """A smooth blob keeps its centre and its integral when the grid gets coarser or finer."""
    affine = GRIDS[grid_name]
    blob = np.exp(-((np.linalg.norm(world_mm(affine, SHAPE) - CENTRE_MM, axis=-1) / 6) ** 2) / 2)
    source = Volume(blob.astype(np.float32), affine)
    for target in (Grid((34, 34, 30), (2.0, 2.0, 2.6)), Grid((64, 64, 64), (0.9, 0.9, 0.9))):
        window = Window.centred(source, target)
        read = resample_image(source, window)
        points = world_mm(window.affine(source), target.shape)
        middle = (points * read[..., None]).sum((0, 1, 2)) / read.sum()
        np.testing.assert_allclose(middle, CENTRE_MM, atol=0.15)
        assert read.sum() * np.prod(target.spacing_mm) == pytest.approx(
            blob.sum() * source.voxel_volume_mm3, rel=0.02
        )


@pytest.mark.parametrize("orientation", ALL_ORIENTATIONS, ids=lambda o: str(o.tolist()))
def test_image_and_mask_of_all_48_orientations_come_back_on_the_files_grid(
    tmp_path: Path, orientation: np.ndarray
) -> None:
    """The same patient, filed in 48 ways: one result inside, and each file's own grid outside."""
    shape: Shape = (9, 8, 7)
    straight = affine_of(
        Rotation.from_euler("xyz", [12, -6, 4], degrees=True), (0.9, 1.2, 2.5), (1, 1, 1), shape
    )
    rng = np.random.default_rng(0)
    scan = rng.integers(0, 4095, shape).astype(np.int16)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    affine = straight @ orientations.inv_ornt_aff(orientation, shape)
    paths = {}
    for name, data in (("image", scan), ("mask", label)):
        turned = orientations.apply_orientation(data, orientation)
        paths[name] = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(turned, affine), paths[name])
    image = read_volume(paths["image"])
    mask = read_label_map(paths["mask"], n_classes=3)
    np.testing.assert_array_equal(image.data, scan)
    np.testing.assert_array_equal(mask.data, label)
    assert corner_distance_mm(image, mask) == 0
    assert corner_distance_mm(image, Volume(scan, straight)) < 1e-4
    for name, volume in (("image", image), ("mask", mask)):
        volume.write(tmp_path / "written.nii.gz")
        old, new = nib.load(paths[name]), nib.load(tmp_path / "written.nii.gz")
        np.testing.assert_array_equal(np.asarray(new.dataobj), np.asarray(old.dataobj))
        np.testing.assert_allclose(new.affine, old.affine, atol=1e-5)
        np.testing.assert_allclose(new.header.get_zooms(), old.header.get_zooms(), atol=1e-6)
        assert nib.aff2axcodes(new.affine) == nib.aff2axcodes(old.affine)
    assert np.linalg.det(image.affine[:3, :3]) > 0


@pytest.mark.parametrize("orientation", ALL_ORIENTATIONS[::5], ids=lambda o: str(o.tolist()))
def test_a_crop_does_not_depend_on_how_the_file_lies(
    tmp_path: Path, orientation: np.ndarray
) -> None:
    affine = GRIDS["oblique"]
    data = (sphere_distance_mm(world_mm(affine, SHAPE)) <= 0).astype(np.uint8)
    target = Grid((32, 32, 24), (1.7, 1.7, 2.0))
    expected = resample_label_map(
        Volume(data, affine), Window.centred(Volume(data, affine), target), n_classes=2
    )
    turned = orientations.apply_orientation(data, orientation)
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(turned, affine @ orientations.inv_ornt_aff(orientation, SHAPE)), path)
    read = read_label_map(path, n_classes=2)
    found = resample_label_map(read, Window.centred(read, target), n_classes=2)
    assert (found != expected).mean() < 1e-4  # float32 in the file's header
