from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from neonet3d.errors import RunError
from neonet3d.generation.masks import (
    ELASTIC_MM,
    ELASTIC_REACH_MM,
    ROTATION_DEG,
    SCALE,
    VOLUME_KEPT,
    Deformation,
    _elastic_mm,
    deform_mask,
    draw_deformation,
)
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "portal_vein", "tumour"))
SHAPE, SPACING_MM = (40, 36, 18), (2.0, 2.0, 4.0)
TUMOUR = 3


def index() -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"))


def from_middle_mm() -> np.ndarray:
    centre = (np.array(SHAPE) - 1) / 2
    return (index() - centre[:, None, None, None]) * np.array(SPACING_MM)[:, None, None, None]


def ball(centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    apart = from_middle_mm() - np.array(centre_mm)[:, None, None, None]
    return (apart**2).sum(0) < radius_mm**2


def patient() -> np.ndarray:
    mask = ball((0, 0, 0), 30).astype(np.uint8)
    mask[10:30, 8:11, 8:10] = 2
    mask[ball((5, 8, 0), 9)] = TUMOUR
    return mask


def test_no_deformation_is_the_identity() -> None:
    still = Deformation(index().astype(np.float32))
    np.testing.assert_array_equal(still.apply(patient(), len(SCHEMA)), patient())


def test_a_shift_shifts() -> None:
    shift = Deformation((index() + np.array([3, 0, 0])[:, None, None, None]).astype(np.float32))
    np.testing.assert_array_equal(shift.apply(patient(), 4)[:-3], patient()[3:])


@pytest.mark.parametrize("seed", range(4))
def test_classes_and_tumour_are_kept(seed: int) -> None:
    old, rng = patient(), np.random.default_rng(seed)
    new = deform_mask(old, SCHEMA, SPACING_MM, rng)
    assert (new.shape, new.dtype) == (old.shape, np.uint8)
    assert set(np.unique(new)) == set(np.unique(old))
    assert not np.array_equal(new, old)
    kept = (new == TUMOUR).sum() / (old == TUMOUR).sum()
    assert VOLUME_KEPT[0] <= kept <= VOLUME_KEPT[1]
    sizes = np.bincount(ndimage.label(new == TUMOUR, np.ones((3, 3, 3)))[0].ravel())[1:]
    assert sizes.max() / sizes.sum() >= 0.95
    inside = ndimage.binary_dilation(new > 0, iterations=2)
    assert inside[new == TUMOUR].all()


def test_the_same_draw_gives_the_same_map() -> None:
    first, again, other = (
        deform_mask(patient(), SCHEMA, SPACING_MM, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("seed", range(3))
def test_a_deformation_is_small_in_mm(seed: int) -> None:
    """Rotation and scale move a point by a share of its distance, the rest is a few mm."""
    drawn = draw_deformation(SHAPE, SPACING_MM, np.random.default_rng(seed))
    spacing = np.array(SPACING_MM)[:, None, None, None]
    moved_mm = np.linalg.norm((drawn.coordinates - index()) * spacing, axis=0)
    distance_mm = np.linalg.norm(from_middle_mm(), axis=0)
    turn = 3 * np.deg2rad(ROTATION_DEG) * (1 + SCALE) + SCALE
    assert (moved_mm < turn * distance_mm + 20).all()
    assert moved_mm.mean() > 1
    # Neighbours stay neighbours: the map does not fold over.
    for axis in range(3):
        steps = np.diff(drawn.coordinates[axis], axis=axis)
        assert steps.min() > 0


def test_a_case_without_tumour_gets_none() -> None:
    old = patient()
    old[old == TUMOUR] = 1
    assert TUMOUR not in deform_mask(old, SCHEMA, SPACING_MM, np.random.default_rng(0))
    organs = LabelSchema(("background", "liver", "portal_vein"))
    assert set(np.unique(deform_mask(old, organs, SPACING_MM, np.random.default_rng(0)))) == {
        0,
        1,
        2,
    }


def test_a_tumour_of_lone_voxels_cannot_be_kept() -> None:
    old = ball((0, 0, 0), 30).astype(np.uint8)
    old[8:32:3, 8:28:3, 4:14:3] = TUMOUR
    with pytest.raises(RunError, match=r"20 deformations .* lost its tumour"):
        deform_mask(old, SCHEMA, SPACING_MM, np.random.default_rng(0))


@pytest.mark.parametrize(("shape", "elastic_mm"), [((16, 16, 8), 1.0), ((64, 64, 32), ELASTIC_MM)])
def test_the_elastic_part_bends_and_moves_no_patch(
    shape: tuple[int, int, int], elastic_mm: float
) -> None:
    """How far neighbours 8 mm apart move against each other; less in a patch of 32 mm."""
    rng, spacing = np.random.default_rng(0), np.array([2.0, 2.0, 4.0])
    fields = np.stack([_elastic_mm(shape, spacing, rng) for _ in range(200)])
    assert np.abs(fields.mean((1, 2, 3))).max() < 1e-9
    bend = (fields[:, 4:] - fields[:, :-4]).std()
    # Of Gaussian noise smoothed by sigma: correlation exp(-d^2 / (4 sigma^2)).
    correlation = np.exp(-((8 / (ELASTIC_REACH_MM / 2)) ** 2) / 4)
    assert bend == pytest.approx(elastic_mm * np.sqrt(2 * (1 - correlation)), rel=0.1)
