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


def test_found_missed_and_invented() -> None:
    reference = cubes((0, 0, 0), (10, 0, 0), (0, 10, 0))
    prediction = cubes((0, 0, 0), (11, 0, 0), (14, 14, 4))
    assert count_lesions(prediction, reference) == LesionCount(3, 2, 1)
    assert count_lesions(reference, reference) == LesionCount(3, 3, 0)


def test_empty_masks() -> None:
    empty, two = cubes(), cubes((0, 0, 0), (10, 10, 0))
    assert count_lesions(empty, empty) == LesionCount(0, 0, 0)
    assert count_lesions(two, empty) == LesionCount(0, 0, 2)
    assert count_lesions(empty, two) == LesionCount(2, 0, 0)


def test_a_graze_is_no_finding() -> None:
    # One of four layers shared: intersection over union 1 / 7; one voxel shared: 1 / 127.
    reference = cubes((0, 0, 0))
    assert count_lesions(cubes((3, 0, 0)), reference) == LesionCount(1, 1, 0)
    assert count_lesions(cubes((3, 3, 3)), reference) == LesionCount(1, 0, 1)


def test_one_finding_over_two_lesions_counts_once() -> None:
    reference = cubes((0, 0, 0), (5, 0, 0))
    joined = reference.copy()
    joined[4, 0:4, 0:4] = True
    assert count_lesions(joined, reference) == LesionCount(2, 1, 0)
    assert count_lesions(reference, joined) == LesionCount(1, 1, 1)


def test_corners_that_touch_are_one_lesion() -> None:
    touching = cubes((0, 0, 0), (4, 4, 4))
    assert count_lesions(touching, touching).n_reference == 1


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="Bring both to one grid"):
        count_lesions(cubes(), cubes()[:5])
