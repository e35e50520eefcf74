"""The surroundings: air outside, a wall around, every organ somewhere."""

import numpy as np

from neonet3d.cohort.phantom.anatomy import body_distance, draw_anatomy
from neonet3d.cohort.phantom.grid import Grid
from neonet3d.cohort.phantom.organs import draw_organs, surroundings
from neonet3d.cohort.phantom.signal import Tissue


def test_air_is_exactly_what_lies_outside_the_skin_and_every_organ_is_there():
    rng = np.random.default_rng(0)
    anatomy, organs = draw_anatomy(rng), draw_organs(rng)
    grid = Grid.centred((4.0, 4.0, 4.0), (310.0, 240.0, 200.0))
    tissue = surroundings(anatomy, organs, grid)
    x, y, _ = grid.mesh_mm()
    outside = np.broadcast_to(body_distance(anatomy, x, y) >= 0, grid.shape)
    np.testing.assert_array_equal(tissue == Tissue.AIR, outside)
    assert set(np.unique(tissue)) >= set(Tissue) - {Tissue.BILE}


def test_a_grid_in_the_air_is_all_air():
    rng = np.random.default_rng(1)
    grid = Grid.centred((4.0, 4.0, 4.0), (40.0, 40.0, 40.0), centre_mm=(400.0, 0.0, 0.0))
    assert not surroundings(draw_anatomy(rng), draw_organs(rng), grid).any()
