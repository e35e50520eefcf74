"""Grids are truthful about where their samples are; downsampling keeps means and thin veins."""

import numpy as np
import pytest

from neonet3d.cohort.phantom.grid import Grid, average_blocks, largest_class, refine_box


def test_affine_maps_indices_to_sample_centres():
    grid = Grid.centred((2.0, 3.0, 5.0), (20.0, 30.0, 40.0), centre_mm=(1.0, -2.0, 3.0))
    x, y, z = grid.axes_mm()
    corner = grid.affine @ [grid.shape[0] - 1, grid.shape[1] - 1, grid.shape[2] - 1, 1]
    np.testing.assert_allclose(corner[:3], [x[-1], y[-1], z[-1]])
    np.testing.assert_allclose([x.mean(), y.mean(), z.mean()], [1, -2, 3], atol=1e-5)
    assert np.all(np.diag(grid.affine) > 0)


def test_refinement_puts_eight_samples_evenly_into_each_cell():
    grid = Grid.centred((2.0, 3.0, 5.0), (20.0, 30.0, 40.0))
    for coarse, fine in zip(grid.axes_mm(), grid.refined().axes_mm(), strict=True):
        np.testing.assert_allclose(fine.reshape(-1, 2).mean(axis=1), coarse, atol=1e-5)


def test_box_of_a_refined_grid_is_the_refined_box():
    grid = Grid.centred((2.0, 3.0, 5.0), (40.0, 30.0, 40.0))
    box = grid.box((-5.0, -7.0, -1.0), (6.0, 2.0, 9.0))
    part, whole = grid.crop(box).refined(), grid.refined().crop(refine_box(box))
    assert part.shape == whole.shape
    np.testing.assert_allclose(part.first_mm, whole.first_mm)
    x, _, _ = grid.crop(box).axes_mm()
    assert x[0] - 1 <= -5.0 < x[0] + 1
    assert x[-1] - 1 <= 6.0 <= x[-1] + 1


def test_a_box_beside_the_grid_is_empty():
    grid = Grid.centred((2.0, 2.0, 2.0), (20.0, 20.0, 20.0))
    box = grid.box((50.0, 50.0, 50.0), (60.0, 60.0, 60.0))
    assert grid.crop(box).shape == (0, 0, 0)


@pytest.mark.parametrize("spacing", [(0.0, 1.0, 1.0), (np.nan, 1.0, 1.0), (-1.0, 1.0, 1.0)])
def test_impossible_spacing_is_refused(spacing):
    with pytest.raises(ValueError, match="spacing_mm"):
        Grid.centred(spacing, (10.0, 10.0, 10.0))


def test_a_field_of_view_below_one_voxel_is_refused():
    with pytest.raises(ValueError, match="no whole voxel"):
        Grid.centred((5.0, 5.0, 5.0), (1.0, 10.0, 10.0))


def test_average_of_blocks():
    values = np.random.default_rng(0).random((6, 4, 8)).astype(np.float32)
    expected = values.reshape(3, 2, 2, 2, 4, 2).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(average_blocks(values), expected, rtol=1e-5)


def test_thin_veins_survive_the_vote_but_do_not_eat_the_tumour():
    share = {
        # liver, portal, hepatic, tumour -> label
        (0.60, 0.40, 0.00, 0.00): 2,
        (0.60, 0.00, 0.40, 0.00): 3,
        (0.70, 0.30, 0.00, 0.00): 1,
        (0.10, 0.40, 0.00, 0.50): 4,
        (0.20, 0.00, 0.00, 0.20): 0,
    }
    columns = np.array(list(share), dtype=np.float32).T.reshape(4, -1, 1, 1)
    np.testing.assert_array_equal(largest_class(*columns).ravel(), list(share.values()))
