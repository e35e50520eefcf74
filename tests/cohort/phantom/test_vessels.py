"""Trees: connected, ordered, and thinning by Murray's law."""

import numpy as np
import pytest

from neonet3d.cohort.phantom.vessels import (
    MURRAY_EXPONENT,
    STEP_MM,
    VesselTree,
    distance_along_tree,
    downstream,
    grow_tree,
    murray_radii,
    stem,
    with_midpoints,
)


def fork() -> VesselTree:
    """A trunk (0, 1), a branch (2, 3) that ends, and a branch (4) that forks into 5 and 6."""
    positions = np.array(
        [[0, 0, 0], [0, 0, 3], [3, 0, 3], [6, 0, 3], [0, 0, 6], [0, 4, 6], [0, -4, 6]], float
    )
    parent = np.array([-1, 0, 1, 2, 1, 4, 4])
    return VesselTree(
        positions, parent, np.array([0, 0, 1, 1, 2, 2, 3]), np.array([0, 0, 0, 1, 0, 1, 1])
    )


@pytest.fixture(scope="module")
def grown() -> VesselTree:
    rng = np.random.default_rng(0)
    trunk = stem(np.array([[0.0, 0, -9], [0, 0, -6], [0, 0, -3], [0, 0, 0]]))
    return grow_tree(trunk, rng.uniform(-60, 60, (40, 3)), rng)


def test_radii_of_a_hand_drawn_fork():
    expected = 6 * (np.array([3, 3, 1, 1, 2, 1, 1]) / 3) ** (1 / 2.7)
    np.testing.assert_allclose(murray_radii(fork(), 6.0), expected)


def test_murrays_law_holds_at_every_fork(grown):
    radii = murray_radii(grown, 6.0)
    power = radii**MURRAY_EXPONENT
    below = np.zeros_like(power)
    np.add.at(below, grown.parent[1:], power[1:])
    ending = grown.terminal * 6.0**MURRAY_EXPONENT / grown.terminal.sum()
    np.testing.assert_allclose(below + ending, power)
    assert radii.max() == radii[0] == pytest.approx(6.0)


def test_parents_come_first_and_steps_are_short(grown):
    assert np.all(grown.parent[1:] < np.arange(1, len(grown.parent)))
    assert grown.terminal.sum() == 40
    assert grown.segment_mm()[1:].max() < 2 * STEP_MM


def test_growing_again_keeps_what_has_grown(grown):
    more = grow_tree(grown, np.array([[50.0, 50, 50]]), np.random.default_rng(1))
    n = len(grown.parent)
    np.testing.assert_array_equal(more.positions_mm[:n], grown.positions_mm)
    np.testing.assert_allclose(more.positions_mm[-1], [50, 50, 50])


def test_nothing_branches_from_the_trunk_before_its_end(grown):
    assert np.count_nonzero(np.isin(grown.parent, [0, 1, 2])) == 3


def test_distance_along_the_tree():
    distance = distance_along_tree(fork(), np.array([3]))
    np.testing.assert_allclose(distance, [9, 6, 3, 0, 9, 13, 13])
    assert np.all(np.isinf(distance_along_tree(fork(), np.array([], dtype=np.int64))))


def test_path_and_downstream():
    np.testing.assert_allclose(fork().path_mm(), [0, 3, 6, 9, 6, 10, 10])
    np.testing.assert_array_equal(downstream(fork(), np.array([4])), [5, 6])


def test_midpoints_take_the_width_of_the_child():
    positions, (values,) = with_midpoints(fork(), np.arange(7.0))
    assert positions.shape == (13, 3)
    np.testing.assert_allclose(positions[7], [0, 0, 1.5])
    assert values[7] == 1.0


def test_a_tree_without_terminals_has_no_radii():
    with pytest.raises(ValueError, match="no terminal"):
        murray_radii(stem(np.zeros((2, 3))), 5.0)
