from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from neonet3d.metrics.skeleton import skeletonise

TOUCHING = np.ones((3, 3, 3))
Triple = tuple[float, float, float]


def box(*size: int) -> np.ndarray:
    mask = np.zeros((24, 24, 24), bool)
    mask[tuple(slice(2, 2 + n) for n in size)] = True
    return mask


def tube(radius_mm: float, spacing_mm: Triple, *, axis: int) -> np.ndarray:
    """A straight tube through the middle of a block of 40 mm, 30 mm long."""
    axes = [(np.arange(round(40 / s)) + 0.5) * s - 20 for s in spacing_mm]
    place = np.stack(np.meshgrid(*axes, indexing="ij"))
    along = np.abs(place[axis]) < 15
    across = np.delete(place, axis, 0)
    return along & ((across**2).sum(0) < radius_mm**2)


def euler_number(mask: np.ndarray) -> int:
    """Vertices - edges + faces - cubes of the union of the voxels as closed cubes."""
    number = 0
    for spans in product((False, True), repeat=3):
        cells = np.pad(mask, 1)
        for axis, spanned in enumerate(spans):
            if not spanned:  # the cell lies between two voxels, and belongs to either
                size = cells.shape[axis]
                cells = cells.take(range(size - 1), axis) | cells.take(range(1, size), axis)
        number += (-1) ** sum(spans) * int(cells.sum())
    return number


def test_of_nothing_there_is_no_skeleton() -> None:
    empty = np.zeros((4, 5, 6), bool)
    assert skeletonise(empty, (1, 1, 1)).shape == (4, 5, 6)
    assert not skeletonise(empty, (1, 1, 1)).any()


@pytest.mark.parametrize(
    "size", [(1, 1, 1), (2, 2, 2), (4, 4, 4), (2, 2, 8), (4, 4, 20), (5, 5, 5)]
)
def test_nothing_vanishes_whatever_its_width(size: tuple[int, int, int]) -> None:
    mask = box(*size)
    skeleton = skeletonise(mask, (1, 1, 1))
    assert 1 <= skeleton.sum() <= 2 * max(size)
    assert not (skeleton & ~mask).any()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.5), (0.8, 1.6, 4.0)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_skeleton_of_a_tube_is_its_axis(spacing: Triple, axis: int) -> None:
    mask = tube(5, spacing, axis=axis)
    skeleton = np.argwhere(skeletonise(mask, spacing))
    place_mm = (skeleton + 0.5) * spacing - 20
    middle = np.abs(place_mm[:, axis]) < 8  # the ends may branch into the rim
    off_axis = np.delete(place_mm[middle], axis, 1)
    assert (np.abs(off_axis) <= 1.01 * np.delete(spacing, axis)).all()
    # One voxel for each step along the tube, and now and then a corner more.
    assert 1 <= middle.sum() / len(np.unique(skeleton[middle, axis])) < 1.5
    assert np.ptp(place_mm[:, axis]) > 30 - 2 * 5 - 2 * max(spacing)


def test_pieces_rings_and_hollows_stay() -> None:
    rng = np.random.default_rng(0)
    for spacing in ((1.0, 1.0, 1.0), (1.0, 1.0, 3.0)):
        noise = ndimage.gaussian_filter(rng.normal(size=(28, 28, 28)), 2)
        for mask in (noise > 0, noise > noise.std()):
            skeleton = skeletonise(mask, spacing)
            assert ndimage.label(skeleton, TOUCHING)[1] == ndimage.label(mask, TOUCHING)[1]
            assert ndimage.label(~np.pad(skeleton, 1))[1] == ndimage.label(~np.pad(mask, 1))[1]
            assert euler_number(skeleton) == euler_number(mask)  # so the rings are as many too
