import numpy as np
import pytest

from neonet3d.metrics.overlap import dice

LABELS = {"liver": 1, "tumour": 2, "vessel": 3}


def test_hand_drawn_maps() -> None:
    prediction = np.array([[1, 1, 0, 0], [1, 2, 2, 0], [0, 2, 0, 0]])
    reference = np.array([[1, 1, 1, 0], [0, 2, 2, 0], [0, 0, 0, 0]])
    scores = dice(prediction, reference, LABELS)
    assert scores["liver"] == pytest.approx(2 * 2 / (3 + 3))
    assert scores["tumour"] == pytest.approx(2 * 2 / (3 + 2))
    assert list(scores) == list(LABELS)


def test_both_empty_is_nan_and_one_empty_is_zero() -> None:
    empty = np.zeros((2, 2, 2), dtype=np.uint8)
    one_voxel = empty.copy()
    one_voxel[0, 0, 0] = 2
    assert np.isnan(dice(empty, empty, LABELS)["tumour"])
    assert dice(one_voxel, empty, LABELS)["tumour"] == 0.0  # a false alarm
    assert dice(empty, one_voxel, LABELS)["tumour"] == 0.0  # a miss
    assert np.isnan(dice(empty, one_voxel, LABELS)["liver"])


def test_perfect_disjoint_and_symmetric() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, size=(2, 5, 6, 7))
    assert dice(a, a, LABELS) == {"liver": 1.0, "tumour": 1.0, "vessel": 1.0}
    assert dice(a, b, LABELS) == dice(b, a, LABELS)
    assert dice(np.full((3, 3), 1), np.full((3, 3), 2), {"liver": 1}) == {"liver": 0.0}


def test_cubes_that_overlap_by_half() -> None:
    a, b = np.zeros((8, 8, 8), dtype=bool), np.zeros((8, 8, 8), dtype=bool)
    a[0:4], b[2:6] = True, True
    assert dice(a, b, {"mask": 1}) == {"mask": 0.5}


def test_wrong_input_is_refused_with_both_shapes_or_the_type() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) but the reference \(3, 2\)"):
        dice(np.zeros((2, 3), int), np.zeros((3, 2), int), LABELS)
    with pytest.raises(ValueError, match="prediction holds float64"):
        dice(np.zeros((2, 2)), np.zeros((2, 2), int), LABELS)
