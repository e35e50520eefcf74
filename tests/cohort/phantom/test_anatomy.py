"""The liver lies where a liver lies."""

import numpy as np
import pytest

from neonet3d.cohort.phantom.anatomy import (
    WALL_MM,
    body_distance,
    draw_anatomy,
    liver_depth,
    liver_distance,
    points_in_liver,
)
from neonet3d.cohort.phantom.grid import Grid


@pytest.fixture(scope="module", params=range(4))
def anatomy(request):
    return draw_anatomy(np.random.default_rng(request.param))


def liver_on(anatomy, grid):
    return liver_distance(anatomy, *grid.mesh_mm(), anatomy.surface.on_grid(grid)) < 0


def test_liver_volume_is_plausible(anatomy):
    grid = Grid.centred((5.0, 5.0, 5.0), (310.0, 240.0, 220.0))
    litres = liver_on(anatomy, grid).sum() * 125 / 1e6
    assert 0.9 < litres < 2.6


def test_liver_lies_on_the_right_and_under_the_wall(anatomy):
    grid = Grid.centred((5.0, 5.0, 5.0), (310.0, 240.0, 220.0))
    x, y, _ = grid.mesh_mm()
    inside = liver_on(anatomy, grid)
    assert np.broadcast_to(x, grid.shape)[inside].mean() > 15  # RAS+: right is positive
    depth = -np.broadcast_to(body_distance(anatomy, x, y), grid.shape)[inside]
    assert depth.min() >= WALL_MM - 1e-3


def test_the_box_holds_the_liver(anatomy):
    grid = Grid.centred((5.0, 5.0, 5.0), (310.0, 240.0, 220.0))
    inside = liver_on(anatomy, grid)
    inside[grid.box(*anatomy.liver_box_mm())] = False
    assert not inside.any()


def test_sampled_points_are_inside(anatomy):
    points = points_in_liver(anatomy, np.random.default_rng(1), 50, 5.0)
    assert points.shape == (50, 3)
    assert liver_depth(anatomy, points).min() > 5


def test_hilum_is_in_or_at_the_liver(anatomy):
    assert liver_depth(anatomy, anatomy.hilum_mm[None])[0] > -12
