"""Lattice noise is one function of the world, whatever the grid."""

import numpy as np

from neonet3d.cohort.phantom.fields import draw_lattice_noise
from neonet3d.cohort.phantom.grid import Grid

LOW, HIGH = (-50.0, -50.0, -50.0), (50.0, 50.0, 50.0)


def test_two_resolutions_agree_on_common_points():
    noise = draw_lattice_noise(np.random.default_rng(1), 9.0, LOW, HIGH)
    coarse = Grid((-30.0, -24.0, -20.0), (4.0, 6.0, 10.0), (12, 9, 5))
    fine = Grid(coarse.first_mm, (2.0, 3.0, 5.0), (24, 18, 10))
    np.testing.assert_allclose(noise.on_grid(fine)[::2, ::2, ::2], noise.on_grid(coarse), atol=2e-6)


def test_grid_and_points_agree():
    noise = draw_lattice_noise(np.random.default_rng(2), 12.0, LOW, HIGH)
    grid = Grid((-40.0, -10.0, 5.0), (7.0, 5.0, 3.0), (10, 6, 4))
    points = np.stack(np.broadcast_arrays(*grid.mesh_mm()), axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(
        noise.at_points(points.astype(np.float64)), noise.on_grid(grid).ravel(), atol=1e-5
    )


def test_zero_mean_and_unit_variance():
    noise = draw_lattice_noise(np.random.default_rng(3), 2.0, LOW, HIGH)
    values = noise.on_grid(Grid.centred((1.3, 1.3, 1.3), (98.0, 98.0, 98.0)))
    assert abs(values.mean()) < 0.01
    assert abs(values.var() - 1) < 0.02


def test_constant_coefficients_give_a_constant_field():
    """B-splines are a partition of unity: only the normalisation by .332 remains."""
    noise = draw_lattice_noise(np.random.default_rng(4), 10.0, LOW, HIGH)
    noise.coefficients[:] = 1.0
    values = noise.on_grid(Grid.centred((3.0, 3.0, 3.0), (99.0, 99.0, 99.0)))
    np.testing.assert_allclose(values, 1 / 0.332, rtol=2e-3)
    assert np.ptp(values) < 1e-4


def test_beyond_the_lattice_the_edge_is_held():
    noise = draw_lattice_noise(np.random.default_rng(5), 10.0, LOW, HIGH)
    values = noise.on_grid(Grid((200.0, 0.0, 0.0), (50.0, 1.0, 1.0), (3, 1, 1)))
    assert np.ptp(values) == 0
