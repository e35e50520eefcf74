from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from neonet3d.cohort.geometry import (
    Grid,
    Window,
    crop_to_window,
    interpolation_matrix,
    on_ridge,
    place_label_map_back,
    resample_image,
    resample_label_map,
    vote,
)
from neonet3d.cohort.volume import Volume, read_label_map
from neonet3d.types import Shape, Triple

TOUCHING = np.ones((3, 3, 3))
CPU_GRID = Grid((32, 32, 16), (2.0, 2.0, 4.0))


def rotated_affine(spacing_mm: Triple) -> np.ndarray:
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", [20, -10, 35], degrees=True).as_matrix()
    affine[:3, :3] = rotation * spacing_mm
    affine[:3, 3] = (-50.0, 20.0, 7.0)
    return affine


def positions_mm(shape: Shape, spacing_mm: Triple) -> np.ndarray:
    """Along the volume's own axes, from its middle."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def sphere(radius_mm: float, shape: Shape, spacing_mm: Triple, centre_mm: Triple) -> Volume:
    distance = np.linalg.norm(positions_mm(shape, spacing_mm) - centre_mm, axis=-1)
    return Volume((distance <= radius_mm).astype(np.uint8), rotated_affine(spacing_mm))


def tube(diameter_mm: float, tilt: float, offset_mm: float) -> Volume:
    """Along z at tilt 0, tilted towards x; in 64 x 64 x 64 mm of 1 x 1 x 2 mm voxels."""
    along = np.array([np.sin(tilt), 0, np.cos(tilt)])
    r = positions_mm((64, 64, 32), (1.0, 1.0, 2.0)) - (offset_mm, offset_mm, 0)
    distance = np.linalg.norm(r - (r @ along)[..., None] * along, axis=-1)
    return Volume((distance <= diameter_mm / 2).astype(np.uint8), np.diag([1.0, 1, 2, 1]))


def volume_mm3(label_map: np.ndarray, spacing_mm: Triple) -> float:
    return float(np.count_nonzero(label_map) * np.prod(spacing_mm))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.9, 1.3), (1.0, 1.5, 2.0), (0.31, 1.5, 0.4)])
def test_a_linear_ramp_is_exact_where_the_grid_gets_finer(spacing_mm: Triple) -> None:
    """A function linear in world coordinates has the same value at the same place on each grid."""
    source_mm = (1.0, 1.5, 2.0)
    affine = rotated_affine(source_mm)

    def ramp(grid_affine: np.ndarray, shape: Shape) -> np.ndarray:
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        world = index @ grid_affine[:3, :3].T + grid_affine[:3, 3]
        return world @ np.array([1.0, -2.0, 0.5])

    source = Volume(ramp(affine, (30, 28, 26)).astype(np.float32), affine)
    window = Window.centred(source, Grid((16, 17, 18), spacing_mm))
    expected = ramp(window.affine(source), (16, 17, 18))
    np.testing.assert_allclose(resample_image(source, window), expected, atol=2e-3)


def test_its_own_grid_gives_the_volume_back() -> None:
    data = np.random.default_rng(0).normal(size=(7, 8, 9)).astype(np.float32)
    source = Volume(data, rotated_affine((1.0, 2.0, 3.0)))
    window = Window.centred(source, Grid(source.shape, source.spacing_mm))
    np.testing.assert_allclose(resample_image(source, window), data, atol=1e-5)
    np.testing.assert_allclose(window.affine(source), source.affine, atol=1e-9)


@pytest.mark.parametrize("partial_volume", [False, True])
@pytest.mark.parametrize("spacing_out_mm", [0.4, 1.0, 1.7, 3.0])
def test_weights_are_a_mean_inside_and_nothing_outside(
    spacing_out_mm: float, partial_volume: bool
) -> None:
    weights = interpolation_matrix(
        20,
        40,
        spacing_in_mm=1.0,
        spacing_out_mm=spacing_out_mm,
        first_mm=-3.0,
        partial_volume=partial_volume,
    )
    position = -3.0 + np.arange(40) * spacing_out_mm
    inside = (position >= -0.5) & (position <= 19.5)
    np.testing.assert_allclose(weights.sum(1), inside.astype(float), atol=1e-6)
    assert weights.min() >= 0


def test_both_kernels_are_linear_interpolation_where_the_grid_does_not_get_coarser() -> None:
    position = {"spacing_in_mm": 2.0, "spacing_out_mm": 1.3, "first_mm": 0.4}
    smooth = interpolation_matrix(10, 12, **position)
    np.testing.assert_allclose(
        smooth, interpolation_matrix(10, 12, **position, partial_volume=True), atol=1e-6
    )
    assert np.count_nonzero(smooth, axis=1).max() == 2


def test_what_is_too_fine_for_the_new_grid_is_averaged() -> None:
    """A checkerboard of 1 mm has no trace at 4 mm; picking every fourth voxel would keep it."""
    stripes = np.indices((32, 32, 32)).sum(0) % 2
    source = Volume(stripes.astype(np.float32), np.eye(4))
    window = Window.centred(source, Grid((6, 6, 6), (4.0, 4.0, 4.0)))
    np.testing.assert_allclose(resample_image(source, window), 0.5, atol=0.02)


def test_outside_the_scan_is_zero() -> None:
    source = Volume(np.full((4, 4, 4), 9, np.float32), np.eye(4))
    read = resample_image(source, Window.centred(source, Grid((8, 8, 8), (1.0, 1.0, 1.0))))
    assert (read[2:6, 2:6, 2:6] == 9).all()
    assert read.sum() == 9 * 64


@pytest.mark.parametrize("radius_mm", [10, 20, 30])
@pytest.mark.parametrize(
    "grid",
    [
        Grid((44, 44, 22), (2.0, 2.0, 4.0)),
        Grid((66, 66, 32), (1.3, 1.3, 2.7)),
        Grid((96, 96, 96), (0.8, 0.8, 0.8)),
    ],
    ids=str,
)
def test_a_sphere_keeps_its_volume(radius_mm: float, grid: Grid) -> None:
    source = sphere(radius_mm, (80, 80, 40), (1.0, 1.0, 2.0), (0.3, -0.2, 0.4))
    read = resample_label_map(source, Window.centred(source, grid), n_classes=2)
    before = volume_mm3(source.data, source.spacing_mm)
    tolerance = 0.08 if radius_mm == 10 else 0.04
    assert volume_mm3(read, grid.spacing_mm) == pytest.approx(before, rel=tolerance)


@pytest.mark.parametrize("diameter_mm", [1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("tilt", [0.0, 0.4])
@pytest.mark.parametrize("offset_mm", [0.25, 0.5, 0.9])
def test_a_thin_tube_survives_on_the_cpu_grid(
    diameter_mm: float, tilt: float, offset_mm: float
) -> None:
    """In one piece, through every slice, without growing into a thick one."""
    source = tube(diameter_mm, tilt, offset_mm)
    read = resample_label_map(source, Window.centred(source, CPU_GRID), n_classes=2)
    assert ndimage.label(read, TOUCHING)[1] == 1
    assert read.any((0, 1)).all()
    per_slice = volume_mm3(read, CPU_GRID.spacing_mm) / 64
    assert per_slice < max(2 * np.pi * diameter_mm**2 / 4, 2.5 * 2 * 2)


def test_a_vein_of_5_mm_across_thick_slices_survives() -> None:
    """The vote alone loses it: it fills no voxel of 4 mm by half."""
    standing = tube(5.0, 0.0, 0.25)
    data = np.moveaxis(standing.data[:, :, :1].repeat(64, 2), 2, 0)[:, :, ::2]
    lying = Volume(np.ascontiguousarray(data), np.diag([1.0, 1, 2, 1]))
    read = resample_label_map(lying, Window.centred(lying, CPU_GRID), n_classes=2)
    assert read.any((1, 2)).all()
    assert ndimage.label(read, TOUCHING)[1] == 1


def test_a_thin_vein_in_the_liver_stays_a_vein() -> None:
    vein = tube(2.0, 0.4, 0.25)
    vein = vein.with_data(np.where(vein.data > 0, 2, 1).astype(np.uint8))
    read = resample_label_map(vein, Window.centred(vein, CPU_GRID), n_classes=3)
    assert set(np.unique(read)) == {1, 2}
    assert (read == 2).any((0, 1)).all()


def test_a_sphere_gets_no_spikes() -> None:
    """What lies on a ridge is thin; a body must not gain voxels away from its surface."""
    source = sphere(20, (80, 80, 40), (1.0, 1.0, 2.0), (0.3, -0.2, 0.4))
    grid = Grid((44, 44, 22), (2.0, 2.0, 4.0))
    window = Window.centred(source, grid)
    read = resample_label_map(source, window, n_classes=2)
    distance = np.linalg.norm(positions_mm(grid.shape, grid.spacing_mm) - (0.3, -0.2, 0.4), axis=-1)
    assert distance[read > 0].max() < 20 + 4
    assert (read[distance < 20 - 4] == 1).all()


def test_a_box_that_is_placed_back_on_a_finer_grid_stays_in_its_faces() -> None:
    """What linear interpolation lays around it is no vein, and its edges are no ridges."""
    target = Volume(np.zeros((40, 40, 40), np.uint8), np.eye(4))
    window = Window((0.5, 0.5, 0.5), Grid((20, 20, 20), (2.0, 2.0, 2.0)))
    box = np.zeros(window.grid.shape, np.uint8)
    box[5:12, 6:14, 7:11] = 1
    back = place_label_map_back(box, window, target, n_classes=2)
    whole = box.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert not back[whole == 0].any()
    assert (back != whole).sum() == 8  # its corners, which it fills by less than a half


def test_a_thin_vein_survives_where_slices_get_thinner() -> None:
    """In plane the grid gets coarser, so that the vote alone loses the vein; a slice is halved."""
    source = Volume(np.zeros((24, 24, 12), np.uint8), np.diag([1.0, 1, 4, 1]))
    window = Window((0.5, 0.5, -1.0), Grid((12, 12, 24), (2.0, 2.0, 2.0)))
    vein, box = source.data.copy(), source.data.copy()
    vein[4:20, 10, 6] = 1
    box[4:20, 4:20, 3:8] = 1
    read = resample_label_map(source.with_data(vein), window, n_classes=2)
    assert read[2:10, 5, 12:14].all()
    assert read.sum() == 8 * 2
    read = resample_label_map(source.with_data(box), window, n_classes=2)
    assert not read[..., :6].any()
    assert not read[..., 16:].any()


def test_a_schema_of_background_alone_gives_background() -> None:
    source = Volume(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    window = Window.centred(source, Grid((2, 2, 2), (2.0, 2.0, 2.0)))
    assert not resample_label_map(source, window, n_classes=1).any()


def around(source: Volume, grid: Grid, voxel: np.ndarray) -> Window:
    """The grid with its middle on a voxel of the source."""
    half = (np.array(grid.shape) - 1) / 2 * np.array(grid.spacing_mm)
    x, y, z = (voxel * np.array(source.spacing_mm) - half).tolist()
    return Window((x, y, z), grid)


@pytest.mark.parametrize("n", [35, 40, 47])
@pytest.mark.parametrize("spacing_mm", [1.0, 0.9999])
def test_voxels_of_equal_size_are_read_as_they_are(n: int, spacing_mm: float) -> None:
    """Whether one is padded or cut, by an odd number of voxels or an even one."""
    data = np.random.default_rng(n).normal(size=(n, n, n)).astype(np.float32)
    source = Volume(data, np.diag([spacing_mm] * 3 + [1.0]))
    read = resample_image(source, Window.centred(source, Grid((40, 40, 40), (1.0, 1.0, 1.0))))
    skipped = (n - 40) // 2  # of the volume if positive, else of the grid
    inside = slice(max(0, -skipped), max(0, -skipped) + min(n, 40))
    kept = slice(max(0, skipped), max(0, skipped) + min(n, 40))
    np.testing.assert_allclose(read[inside, inside, inside], data[kept, kept, kept], atol=0.1)
    assert np.count_nonzero(read) == min(n, 40) ** 3


def test_the_inverse_map_returns_a_sphere() -> None:
    source = sphere(15, (70, 66, 40), (1.1, 0.9, 2.2), (4.0, -3.0, 5.0))
    grid = Grid((48, 48, 40), (1.3, 1.3, 1.6))
    window = around(source, grid, np.array([38.0, 30.0, 21.0]))
    crop = resample_label_map(source, window, n_classes=2)
    back = place_label_map_back(crop, window, source, n_classes=2)
    assert back.shape == source.shape
    assert dice(back == 1, source.data == 1) > 0.95


def test_the_window_lies_where_its_affine_says() -> None:
    source = Volume(np.zeros((20, 20, 20), np.uint8), rotated_affine((1.0, 1.5, 2.0)))
    centre = np.array([7.0, 9.0, 11.0])
    window = around(source, Grid((5, 5, 5), (3.0, 3.0, 3.0)), centre)
    np.testing.assert_allclose(
        window.affine(source) @ [2, 2, 2, 1], source.affine @ [*centre, 1], atol=1e-9
    )


def test_a_real_liver_survives_cropping_and_return(real_data: Callable[[str], Path]) -> None:
    path = real_data("totalseg_mr_ct") / "example_seg_mr.nii.gz"
    labels = read_label_map(path, n_classes=51)
    liver = labels.with_data((labels.data == 5).astype(np.uint8))
    window = Window.centred(liver, Grid((80, 64, 32), (4.5, 4.5, 2.5)))
    crop = resample_label_map(liver, window, n_classes=2)
    back = place_label_map_back(crop, window, liver, n_classes=2)
    assert dice(back == 1, liver.data == 1) > 0.95


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.5, 4.0)] * 3),
    grid=st.builds(
        Grid, st.tuples(*[st.integers(1, 16)] * 3), st.tuples(*[st.floats(0.5, 4.0)] * 3)
    ),
    first_mm=st.tuples(*[st.floats(-70.0, 90.0)] * 3),
)
def test_only_what_the_window_sees_is_worked_on(
    shape: Shape, spacing_mm: Triple, grid: Grid, first_mm: Triple
) -> None:
    """The same as the whole matrices on the whole volume: inside, half outside, far outside."""
    rng = np.random.default_rng(0)
    affine = np.diag([*spacing_mm, 1.0])
    image = Volume(rng.normal(100, 10, shape).astype(np.float32), affine)
    mask = Volume(rng.integers(0, 4, shape).astype(np.uint8), affine)
    window = Window(first_mm, grid)

    def whole(
        data: np.ndarray, *, partial_volume: bool, along: Sequence[int] = (0, 1, 2)
    ) -> np.ndarray:
        matrices = [
            interpolation_matrix(
                shape[axis],
                grid.shape[axis],
                spacing_in_mm=image.spacing_mm[axis],
                spacing_out_mm=grid.spacing_mm[axis],
                first_mm=first_mm[axis],
                partial_volume=partial_volume,
            )
            if axis in along
            else np.eye(data.shape[axis])
            for axis in range(3)
        ]
        return np.einsum("ax,by,cz,xyz->abc", *matrices, data, optimize=True)

    expected = whole(image.data, partial_volume=False)
    np.testing.assert_allclose(resample_image(image, window), expected, rtol=1e-4, atol=1e-3)
    finer = [axis for axis in range(3) if grid.spacing_mm[axis] < 0.999 * spacing_mm[axis]]
    others = [axis for axis in range(3) if axis not in finer]

    def ridges(inside: np.ndarray) -> np.ndarray:
        room = np.array([[axis in finer] * 2 for axis in range(3)], dtype=int)
        ridge = on_ridge(np.pad(whole(inside, partial_volume=True, along=others), room))
        kept = tuple(slice(n, -n or None) for n, _ in room)
        return whole(ridge[kept], partial_volume=True, along=finer) > 0.499

    classes = [(mask.data == value).astype(np.float32) for value in range(1, 4)]
    memberships = [whole(c, partial_volume=True).astype(np.float32) for c in classes]
    members = [(m, ridges(c) & bool(others)) for m, c in zip(memberships, classes, strict=True)]
    found, voted = resample_label_map(mask, window, n_classes=4), vote(grid.shape, members)
    # Sums of other lengths are rounded otherwise, which decides where two classes are even.
    assert (found != voted).mean() <= 0.02
    assert not found[~np.any([m > 0 for m in memberships], axis=0)].any()


@pytest.mark.parametrize(
    ("first_mm", "grid"),
    [
        ((10.0, 7.3, 12.0), Grid((9, 8, 7), (1.0, 1.4, 2.0))),
        ((-8.0, -3.0, 30.0), Grid((12, 12, 30), (1.0, 1.0, 1.0))),  # over the border
        ((5.0, 5.0, 5.0), Grid((4, 4, 4), (3.5, 4.0, 5.0))),  # coarser: anti-aliased
        ((-90.0, 0.0, 0.0), Grid((5, 5, 5), (1.0, 1.0, 1.0))),  # nothing of the scan
    ],
)
def test_reading_the_part_gives_what_reading_the_whole_gives(first_mm: Triple, grid: Grid) -> None:
    data = np.random.default_rng(0).normal(100, 20, (40, 36, 20)).astype(np.float32)
    volume = Volume(data, rotated_affine((1.0, 1.2, 2.0)))
    window = Window(first_mm, grid)
    part, on_part = crop_to_window(volume, window)
    assert part.data.size < volume.data.size
    np.testing.assert_allclose(on_part.affine(part), window.affine(volume), atol=1e-9)
    np.testing.assert_allclose(
        resample_image(part, on_part), resample_image(volume, window), atol=1e-4
    )


def test_a_grid_read_on_itself_is_not_interpolated() -> None:
    data = np.random.default_rng(0).normal(100, 20, (9, 8, 7)).astype(np.float32)
    volume = Volume(data, rotated_affine((1.0, 1.2, 2.0)))
    window = Window.centred(volume, Grid(volume.shape, volume.spacing_mm))
    np.testing.assert_array_equal(resample_image(volume, window), data)
