from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from neonet3d.errors import InputError, RunError
from neonet3d.generation.lesion_edit import (
    TOUCHING,
    TumourEdit,
    grow_tumour,
    insert_tumour,
    move_tumour,
    remove_tumour,
    resize_tumour,
    shift_tumour,
)
from neonet3d.metrics.skeleton import skeletonise
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "portal_vein", "hepatic_vein", "tumour"))
SHAPE, SPACING_MM = (40, 36, 18), (2.0, 2.0, 4.0)
VOXEL_MM3 = 16.0
TUMOUR = 4
seeds = st.integers(0, 2**32 - 1)


def ball(centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    middle = (np.array(SHAPE) - 1)[:, None, None, None] / 2
    at_mm = (np.indices(SHAPE) - middle) * np.array(SPACING_MM)[:, None, None, None]
    return ((at_mm - np.array(centre_mm)[:, None, None, None]) ** 2).sum(0) < radius_mm**2


def patient(radius_mm: float = 8) -> np.ndarray:
    mask = ball((0, 0, 0), 33).astype(np.uint8)
    mask[8:32, 8:10, 8:10] = 2
    mask[18:20, 6:30, 12:14] = 3
    mask[ball((5, 10, -4), radius_mm)] = TUMOUR
    return mask


def without_tumour() -> np.ndarray:
    return remove_tumour(patient(), SCHEMA, SPACING_MM)


def pieces(mask: np.ndarray) -> int:
    return int(ndimage.label(mask, TOUCHING)[1])


def check(old: np.ndarray, new: np.ndarray, volume_mm3: float) -> None:
    """One tumour of this volume, inside the old liver; every vein as it was or longer."""
    tumour = new == TUMOUR
    assert tumour.sum() == pytest.approx(volume_mm3 / VOXEL_MM3, abs=0.51)
    assert pieces(tumour) == 1
    assert (old[tumour] != 0).all()
    for vein in (2, 3):
        before, after = old == vein, new == vein
        assert (after | ~before).all()  # no vein voxel is covered
        assert pieces(after) == pieces(before)
        centreline = skeletonise(after, SPACING_MM)
        assert pieces(centreline) == pieces(before)
    assert (new == 0).sum() == (old == 0).sum()


@settings(max_examples=25, deadline=None)
@given(seed=seeds, volume_mm3=st.floats(200, 8000))
def test_a_drawn_tumour_is_inserted(seed: int, volume_mm3: float) -> None:
    old = without_tumour()
    new = insert_tumour(old, SCHEMA, SPACING_MM, volume_mm3, np.random.default_rng(seed))
    check(old, new, volume_mm3)


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_a_tumour_is_moved_with_its_volume(seed: int) -> None:
    old = patient()
    new = move_tumour(old, SCHEMA, SPACING_MM, np.random.default_rng(seed))
    check(old, new, (old == TUMOUR).sum() * VOXEL_MM3)


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(0.2, 2.5))
def test_another_volume_moves_the_surface_alone(factor: float) -> None:
    old = patient()
    volume_mm3 = factor * (old == TUMOUR).sum() * VOXEL_MM3
    new = resize_tumour(old, SCHEMA, SPACING_MM, volume_mm3)
    check(old, new, volume_mm3)
    # Its shape is kept: the smaller of both lies within the larger.
    smaller, larger = sorted((old == TUMOUR, new == TUMOUR), key=np.sum)
    assert larger[smaller].all()


@pytest.mark.parametrize("by_mm", [-3.0, -1.0, 1.0, 4.0])
def test_a_ball_grows_into_a_ball(by_mm: float) -> None:
    new = grow_tumour(patient(10), SCHEMA, SPACING_MM, by_mm)
    radius_mm = (3 * (new == TUMOUR).sum() * VOXEL_MM3 / (4 * np.pi)) ** (1 / 3)
    assert radius_mm == pytest.approx(10 + by_mm, abs=1.2)  # of voxels of 2 x 2 x 4


def test_a_tumour_at_the_border_may_be_moved_along_it() -> None:
    """It lies outside the liver with a share that no new tumour might."""
    slab = np.zeros(SHAPE, np.uint8)
    slab[:, 14:30] = 1
    slab[ball((-8, -4, 0), 10)] = TUMOUR
    slab[:, :14] = 0
    new = shift_tumour(slab, SCHEMA, SPACING_MM, (16.0, 0.0, 0.0))
    assert (new == TUMOUR).sum() == (slab == TUMOUR).sum()
    with pytest.raises(RunError, match="does not fit there"):
        shift_tumour(slab, SCHEMA, SPACING_MM, (0.0, -8.0, 0.0))


@pytest.mark.parametrize("by_mm", [(4.0, 0.0, 0.0), (-6.0, 2.0, 0.0), (0.0, 0.0, 4.0)])
def test_a_tumour_is_shifted_as_it_is(by_mm: tuple[float, float, float]) -> None:
    old = patient(10)
    new = shift_tumour(old, SCHEMA, SPACING_MM, by_mm)
    voxels = np.rint(np.array(by_mm) / SPACING_MM).astype(int)
    assert np.array_equal(new == TUMOUR, np.roll(old == TUMOUR, voxels, (0, 1, 2)))
    check(old, new, (old == TUMOUR).sum() * VOXEL_MM3)
    assert np.array_equal(shift_tumour(old, SCHEMA, SPACING_MM, (0.9, 0.9, 1.9)), old)
    everywhere = np.where(old == TUMOUR, TUMOUR, 1).astype(np.uint8)
    for far_mm in (30.0, 60.0, 200.0):  # half of it, all of it, and its surroundings too
        with pytest.raises(RunError, match="does not fit there"):
            shift_tumour(everywhere, SCHEMA, SPACING_MM, (far_mm, 0.0, 0.0))


def test_the_hole_is_filled_with_liver() -> None:
    old = patient()
    left = remove_tumour(old, SCHEMA, SPACING_MM)
    assert (left[old == TUMOUR] == 1).all()
    assert np.array_equal(left[old != TUMOUR], old[old != TUMOUR])


def test_a_tumour_at_the_livers_border_leaves_no_hole() -> None:
    old = patient()
    old[ball((0, 30, 0), 8) & (old == 1)] = TUMOUR
    left = remove_tumour(old, SCHEMA, SPACING_MM)
    assert np.array_equal(left == 0, old == 0)


def test_a_vein_that_a_tumour_had_indented_is_made_whole_but_never_joined() -> None:
    old = patient()
    old[old == TUMOUR] = 1
    old[14:22, 12:18, 6:12] = 2
    old[16:20, 17, 8:10] = TUMOUR  # in the side of the vein
    assert (remove_tumour(old, SCHEMA, SPACING_MM)[16:20, 17, 8:10] == 2).all()
    old[14:22, 12:18, 6:12] = 1
    old[10:26, 14:17, 7:10] = 2
    old[17:19, 14:17, 7:10] = TUMOUR  # cuts the vein in two
    left = remove_tumour(old, SCHEMA, SPACING_MM)
    assert pieces(left == 2) == pieces(old == 2)


def test_what_cannot_be_done_is_said() -> None:
    rng, old = np.random.default_rng(0), patient()
    empty = without_tumour()
    with pytest.raises(InputError, match="has a tumour already"):
        insert_tumour(old, SCHEMA, SPACING_MM, 500, rng)
    for edit in (
        lambda: move_tumour(empty, SCHEMA, SPACING_MM, rng),
        lambda: resize_tumour(empty, SCHEMA, SPACING_MM, 500),
        lambda: grow_tumour(empty, SCHEMA, SPACING_MM, 1),
        lambda: shift_tumour(empty, SCHEMA, SPACING_MM, (2, 0, 0)),
    ):
        with pytest.raises(InputError, match="no tumour to edit"):
            edit()
    with pytest.raises(InputError, match="nothing of the tumour is left"):
        grow_tumour(old, SCHEMA, SPACING_MM, -30)
    with pytest.raises(RunError, match="no room for a tumour"):
        insert_tumour(empty, SCHEMA, SPACING_MM, 150_000, rng)
    with pytest.raises(RunError, match="cannot have"):
        resize_tumour(old, SCHEMA, SPACING_MM, 120_000)
    with pytest.raises(RunError, match="no room"):
        insert_tumour(np.zeros(SHAPE, np.uint8), SCHEMA, SPACING_MM, 500, rng)
    organs = LabelSchema(("background", "anterior", "posterior"))
    with pytest.raises(InputError, match="no class 'tumour'"):
        move_tumour(empty, organs, SPACING_MM, rng)


def test_an_edit_moves_resizes_or_inserts() -> None:
    rng, old = np.random.default_rng(0), patient()
    grown = TumourEdit(move=False, volume_mm3=4000).apply(old, SCHEMA, SPACING_MM, rng)
    check(old, grown, 4000)
    assert (grown == TUMOUR)[old == TUMOUR].all()
    inserted = TumourEdit(move=False, volume_mm3=2000).apply(
        without_tumour(), SCHEMA, SPACING_MM, rng
    )
    assert (inserted == TUMOUR).sum() == pytest.approx(2000 / VOXEL_MM3, abs=0.51)
    moved = TumourEdit(move=True, volume_mm3=None).apply(old, SCHEMA, SPACING_MM, rng)
    assert (moved == TUMOUR).sum() == (old == TUMOUR).sum()
    assert not np.array_equal(moved, old)
    with pytest.raises(InputError, match="A tumour of 0 mm3"):
        TumourEdit(move=False, volume_mm3=0).apply(old, SCHEMA, SPACING_MM, rng)
