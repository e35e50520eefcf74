from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from neonet3d.cohort.regrid import draw_on_grid
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError


def grid(shape: tuple[int, int, int], spacing: tuple[float, ...], angle: float = 0.0) -> Volume:
    """An empty mask whose middle is at the world's origin, turned about an oblique axis."""
    affine = np.eye(4)
    turn = Rotation.from_rotvec(np.deg2rad(angle) * np.array([1, 2, 2]) / 3).as_matrix()
    affine[:3, :3] = turn * np.array(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Volume(np.zeros(shape, dtype=np.uint8), affine)


def world(volume: Volume) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.shape], indexing="ij"), -1)
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def ball(volume: Volume, radius: float, centre: tuple[float, float, float]) -> Volume:
    inside = np.linalg.norm(world(volume) - np.array(centre), axis=-1) < radius
    return volume.with_data(inside.astype(np.uint8))


@pytest.mark.parametrize("angle", [0.0, 20.0, 75.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 0.8, 2.5), (3.0, 3.0, 3.0)])
def test_a_ball_stays_where_it_is_in_the_patient(angle: float, spacing: tuple[float, ...]) -> None:
    centre = (4.0, -6.0, 3.0)
    drawn = ball(grid((60, 60, 60), (1, 1, 1)), 12, centre)
    shape = tuple(int(60 / s) for s in spacing)
    target = grid((shape[0], shape[1], shape[2]), spacing, angle)
    data = draw_on_grid(drawn, target, n_classes=2, name="a")
    assert data.dtype == np.uint8
    volume_mm3 = data.sum() * target.voxel_volume_mm3
    assert volume_mm3 == pytest.approx(drawn.data.sum(), rel=0.03)
    np.testing.assert_allclose(world(target)[data == 1].mean(0), centre, atol=0.3)


def test_the_same_grid_gives_the_same_mask() -> None:
    rng = np.random.default_rng(0)
    mask = grid((9, 8, 7), (1, 2, 3), 30)
    mask = mask.with_data(rng.integers(0, 4, mask.shape).astype(np.uint8))
    np.testing.assert_array_equal(draw_on_grid(mask, mask, n_classes=4, name="a"), mask.data)


def test_flipped_and_permuted_axes_are_told_by_the_affine() -> None:
    mask = ball(grid((20, 22, 24), (1, 1, 1)), 4, (3, 2, -5))
    affine = mask.affine @ np.array([[0, -1, 0, 19], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    turned = Volume(np.ascontiguousarray(mask.data.transpose(2, 0, 1)[:, ::-1]), affine)
    np.testing.assert_array_equal(draw_on_grid(turned, mask, n_classes=2, name="a"), mask.data)


def test_a_thin_vein_survives_a_coarser_grid() -> None:
    mask = grid((40, 40, 40), (1, 1, 1))
    data = np.zeros(mask.shape, dtype=np.uint8)
    data[20, 20, :] = 1
    drawn = draw_on_grid(mask.with_data(data), grid((20, 20, 20), (2, 2, 2)), n_classes=2, name="a")
    assert drawn.any(axis=(0, 1)).all()


def test_a_box_on_a_finer_grid_stays_in_its_faces() -> None:
    mask = grid((20, 20, 20), (2, 2, 2))
    data = np.zeros(mask.shape, dtype=np.uint8)
    data[5:12, 6:14, 7:11] = 1
    target = grid((40, 40, 40), (1, 1, 1))
    drawn = draw_on_grid(mask.with_data(data), target, n_classes=2, name="a")
    whole = data.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert not drawn[whole == 0].any()
    assert (drawn != whole).sum() == 8  # its corners, which it fills by less than a half


def test_a_thin_vein_survives_where_slices_get_thinner_and_a_box_gets_no_spikes() -> None:
    mask, target = grid((24, 24, 12), (1, 1, 4)), grid((12, 12, 24), (2, 2, 2))
    vein, box = mask.data.copy(), mask.data.copy()
    vein[4:20, 10, 6] = 1
    box[4:20, 4:20, 3:8] = 1
    drawn = draw_on_grid(mask.with_data(vein), target, n_classes=2, name="a")
    assert drawn[2:10, 5, 12:14].any(-1).all()
    assert not np.delete(drawn, [12, 13], axis=2).any()
    drawn = draw_on_grid(mask.with_data(box), target, n_classes=2, name="a")
    assert drawn.any()
    assert not np.delete(drawn, np.arange(6, 16), axis=2).any()


def test_a_mask_that_reaches_beyond_the_scan_is_cut() -> None:
    mask = grid((40, 40, 40), (1, 1, 1)).with_data(np.ones((40, 40, 40), np.uint8))
    target = grid((20, 20, 60), (1, 1, 1))
    drawn = draw_on_grid(mask, target, n_classes=2, name="a")
    inside = np.abs(world(target)[..., 2]) < 20
    np.testing.assert_array_equal(drawn == 1, inside)


def test_a_mask_of_another_place_is_refused() -> None:
    mask = ball(grid((20, 20, 20), (1, 1, 1)), 5, (0, 0, 0))
    target = grid((20, 20, 20), (1, 1, 1))
    target.affine[:3, 3] += [0, 300, 400]
    with pytest.raises(InputError, match=r"a: the mask lies outside the scan \(centres 500 mm"):
        draw_on_grid(mask, target, n_classes=2, name="a")
    empty = grid((20, 20, 20), (1, 1, 1))
    assert not draw_on_grid(empty, target, n_classes=2, name="a").any()
