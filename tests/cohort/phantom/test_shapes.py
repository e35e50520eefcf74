"""Signed distances against spheres; balls against the formula that they paint."""

import numpy as np
import pytest

from neonet3d.cohort.phantom.grid import Grid
from neonet3d.cohort.phantom.shapes import (
    ellipsoid_distance,
    paint_balls,
    smooth_maximum,
    smooth_minimum,
)


def test_a_sphere_has_the_exact_distance():
    grid = Grid.centred((3.0, 4.0, 5.0), (60.0, 60.0, 60.0))
    x, y, z = grid.mesh_mm()
    expected = np.sqrt((x - 2) ** 2 + y**2 + (z + 3) ** 2) - 17
    np.testing.assert_allclose(
        ellipsoid_distance(x, y, z, (2.0, 0.0, -3.0), (17.0, 17.0, 17.0)), expected, atol=1e-3
    )


def test_the_centre_is_a_semi_axis_deep():
    zero = np.zeros(1, np.float32)
    assert ellipsoid_distance(zero, zero, zero, (0.0, 0.0, 0.0), (9.0, 9.0, 9.0)) == pytest.approx(
        -9, rel=1e-3
    )


def test_smooth_union_touches_the_sharp_one_away_from_the_seam():
    a, b = np.array([0.0, 5.0, 30.0]), np.array([0.0, 5.0, 0.0])
    np.testing.assert_allclose(smooth_minimum(a, b, 8.0), [-2.0, 3.0, 0.0])
    np.testing.assert_allclose(smooth_maximum(a, b, 8.0), [2.0, 7.0, 30.0])


def test_balls_are_painted_as_the_formula_says_even_across_the_border():
    grid = Grid.centred((1.0, 1.5, 2.0), (30.0, 30.0, 30.0))
    centres = np.array([[0.0, 0, 0], [14.0, 3, -2], [1.0, 2, 0], [60.0, 0, 0]])
    radii, amplitudes = np.array([4.0, 3.0, 6.0, 5.0]), np.array([1.0, 0.5, 0.3, 1.0])
    canvas = np.zeros(grid.shape, np.float32)
    paint_balls(canvas, grid, centres, radii, amplitudes, fade_mm=3.0, level=1.3)
    x, y, z = grid.mesh_mm()
    expected = np.zeros(grid.shape)
    for (cx, cy, cz), radius, amplitude in zip(centres, radii, amplitudes, strict=True):
        distance = np.sqrt((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) - radius
        expected = np.maximum(expected, amplitude * np.clip(1.3 - distance / 3.0, 0, 1))
    np.testing.assert_allclose(canvas, expected, atol=1e-4)


def test_an_antialiased_tube_has_the_right_volume():
    grid = Grid.centred((1.0, 1.0, 1.0), (20.0, 20.0, 40.0))
    centres = np.stack([np.zeros(161), np.zeros(161), np.linspace(-30, 30, 161)], axis=1)
    canvas = np.zeros(grid.shape, np.float32)
    paint_balls(canvas, grid, centres, np.full(161, 4.0), np.ones(161), fade_mm=1.0, level=0.5)
    assert canvas.sum() == pytest.approx(np.pi * 16 * 40, rel=0.02)


def test_a_canvas_of_another_shape_is_refused():
    grid = Grid.centred((1.0, 1.0, 1.0), (4.0, 4.0, 4.0))
    with pytest.raises(ValueError, match="contiguous"):
        paint_balls(
            np.zeros((3, 3, 3), np.float32), grid, np.zeros((1, 3)), [1.0], [1.0],
            fade_mm=1.0, level=0.5,
        )  # fmt: skip
