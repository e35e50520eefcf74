import numpy as np
import pytest

from neonet3d.errors import InputError
from neonet3d.metrics.lesions import LesionCount, count_lesions

GRID = (20, 20, 10)


def cubes(*corners: tuple[int, int, int], size: int = 4) -> np.ndarray:
    mask = np.zeros(GRID, bool)
    for x, y, z in corners:
        mask[x : x + size, y : y + size, z : z + size] = True
    return mask


def counts(prediction: np.ndarray, reference: np.ndarray) -> tuple[int, int, int]:
    score = count_lesions(prediction, reference)
    assert len(score.dice) == score.n_found
    return score.n_reference, score.n_found, score.n_false


def test_found_missed_and_invented() -> None:
    reference = cubes((0, 0, 0), (10, 0, 0), (0, 10, 0))
    prediction = cubes((0, 0, 0), (11, 0, 0), (14, 14, 4))
    score = count_lesions(prediction, reference)
    assert score == LesionCount(3, 2, 1, (1, 0.75))  # the second shares three of its four layers
    assert count_lesions(reference, reference) == LesionCount(3, 3, 0, (1, 1, 1))


def test_empty_masks() -> None:
    empty, two = cubes(), cubes((0, 0, 0), (10, 10, 0))
    assert count_lesions(empty, empty) == LesionCount(0, 0, 0, ())
    assert count_lesions(two, empty) == LesionCount(0, 0, 2, ())
    assert count_lesions(empty, two) == LesionCount(2, 0, 0, ())


def test_a_graze_is_no_finding() -> None:
    # One of four layers shared: intersection over union 1 / 7; one voxel shared: 1 / 127.
    reference = cubes((0, 0, 0))
    assert counts(cubes((3, 0, 0)), reference) == (1, 1, 0)
    assert counts(cubes((3, 3, 3)), reference) == (1, 0, 1)


def test_one_finding_over_two_lesions_counts_once() -> None:
    reference = cubes((0, 0, 0), (5, 0, 0))
    joined = reference.copy()
    joined[4, 0:4, 0:4] = True
    # 64 voxels of 144 are shared with either lesion, 64 + 144 voxels in all.
    assert count_lesions(joined, reference) == LesionCount(2, 1, 0, (2 * 64 / (64 + 144),))


def test_a_lesion_in_two_parts_is_found_once() -> None:
    whole = cubes((0, 0, 0), (5, 0, 0))
    whole[4, 0:4, 0:4] = True
    parts = cubes((0, 0, 0), (5, 0, 0))
    assert counts(parts, whole) == (1, 1, 1)


def test_every_stray_voxel_is_a_false_finding() -> None:
    reference = cubes((0, 0, 0))
    prediction = reference.copy()
    prediction[10, 10, 5] = prediction[15, 10, 5] = True
    assert counts(prediction, reference) == (1, 1, 2)


def test_corners_that_touch_are_one_lesion() -> None:
    touching = cubes((0, 0, 0), (4, 4, 4))
    assert count_lesions(touching, touching).n_reference == 1


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="Bring both to one grid"):
        count_lesions(cubes(), cubes()[:5])
