from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from neonet3d.generation.lesion_shape import draw_shape_mm, tumour_distance_mm
from neonet3d.metrics.lesions import TOUCHING

SHAPE, SPACING_MM = (40, 36, 18), (2.0, 2.0, 4.0)


def test_the_surface_lies_between_the_voxels() -> None:
    slab = np.zeros(SHAPE, dtype=bool)
    slab[10:20] = True
    along = tumour_distance_mm(slab, SPACING_MM)[:, 18, 9]
    # Voxels of 2 mm, surfaces at 9.5 and 19.5.
    assert along[[13, 25]] == pytest.approx([7, -11], abs=1e-3)
    assert along[9] == pytest.approx(-along[10])


def test_distances_are_in_mm_from_the_surface() -> None:
    middle = (np.array(SHAPE) - 1)[:, None, None, None] / 2
    at_mm = (np.indices(SHAPE) - middle) * np.array(SPACING_MM)[:, None, None, None]
    truth = 20 - np.linalg.norm(at_mm, axis=0)
    error = (tumour_distance_mm(truth > 0, SPACING_MM) - truth)[np.abs(truth) < 8]
    assert abs(error.mean()) < 0.1
    assert np.abs(error).max() < 1.5  # of voxels of 2 x 2 x 4


def test_a_drawn_shape_is_a_single_lump_and_no_other_is_alike() -> None:
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(5):
        depth = draw_shape_mm(SHAPE, SPACING_MM, 4000.0, rng)
        drawn.append(depth > np.sort(depth.ravel())[-251])
        assert drawn[-1].sum() == 250
        assert ndimage.label(drawn[-1], TOUCHING)[1] == 1
        assert np.linalg.norm((np.argwhere(drawn[-1]).mean(0) - [19.5, 17.5, 8.5]) * SPACING_MM) < 6
    overlaps = [(a & b).sum() / 250 for a in drawn for b in drawn if a is not b]
    assert max(overlaps) < 0.95
