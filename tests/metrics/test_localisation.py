from __future__ import annotations

import numpy as np
import pytest

from neonet3d.metrics.localisation import chance_of_hit, hits, voxel_auc

SPACING_MM = (2.0, 2.0, 4.0)


def peak(*place: int) -> np.ndarray:
    importance = np.zeros((8, 8, 8))
    importance[place] = 1
    return importance


def test_a_hit_is_within_millimetres_not_voxels() -> None:
    truth = peak(4, 4, 4) > 0
    for place, distance in (((4, 4, 4), 0), ((5, 4, 4), 2), ((4, 4, 5), 4), ((5, 5, 4), 8**0.5)):
        found = [
            hits(peak(*place), truth, spacing_mm=SPACING_MM, tolerance_mm=distance + moved)
            for moved in (-0.01, 0.01)
        ]
        assert found == [False, True]


def test_chance_is_the_share_of_voxels_that_would_hit() -> None:
    """By drawing places at random."""
    truth = np.zeros((8, 8, 8), bool)
    truth[2:4, 3:5, 4] = True
    within = np.zeros((8, 8, 8), bool)
    within[:, :, 2:7] = True
    places = np.argwhere(within)
    drawn = [hits(peak(*p), truth, spacing_mm=SPACING_MM, tolerance_mm=4.0) for p in places]
    chance = chance_of_hit(truth, within, spacing_mm=SPACING_MM, tolerance_mm=4.0)
    assert chance == pytest.approx(np.mean(drawn))


def test_voxel_auc_counts_pairs_inside_only() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((6, 6, 6)) < 0.2
    within = rng.random((6, 6, 6)) < 0.7
    importance = truth + rng.normal(size=truth.shape)
    importance[~within] = 100  # is not looked at
    positive, negative = importance[truth & within], importance[~truth & within]
    expected = np.mean(positive[:, None] > negative[None, :])
    assert voxel_auc(importance, truth, within) == pytest.approx(expected)


def test_nothing_to_point_at_is_an_error() -> None:
    nothing = np.zeros((3, 3, 3), bool)
    with pytest.raises(ValueError, match="no truth"):
        hits(np.ones((3, 3, 3)), nothing, spacing_mm=SPACING_MM, tolerance_mm=1.0)
    with pytest.raises(ValueError, match="no truth"):
        chance_of_hit(nothing, ~nothing, spacing_mm=SPACING_MM, tolerance_mm=1.0)
