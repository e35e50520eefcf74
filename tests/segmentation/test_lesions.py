from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.metrics.box import bounding_box
from neonet3d.segmentation.lesions import close_gaps, find_lesions
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))


def mask_of(*boxes: tuple[slice, slice, slice]) -> Volume:
    data = np.ones((30, 20, 10), np.uint8)
    for box in boxes:
        data[box] = 2
    return Volume(data, np.diag([1.0, 2.0, 3.0, 1.0]))


@settings(deadline=None, derandomize=True, database=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3), share=st.floats(0.0, 1.0), seed=st.integers(0, 99)
)
def test_closing_is_scipys(shape: tuple[int, int, int], share: float, seed: int) -> None:
    region = np.random.default_rng(seed).random(shape) < share
    expected = ndimage.binary_closing(np.pad(region, 3))[3:-3, 3:-3, 3:-3]
    np.testing.assert_array_equal(close_gaps(region), expected)
    box = bounding_box(region)
    if not region.any():
        assert box is None
        return
    found = ndimage.find_objects(region.astype(int))[0]
    assert box == found
    # What is closed in the box of a region is what is closed in the whole array.
    np.testing.assert_array_equal(close_gaps(region[found]), expected[found])
    assert expected.sum() == expected[found].sum()


def test_lesions_come_by_weight_with_their_boxes_and_volumes() -> None:
    mask = mask_of(np.s_[2:5, 3:7, 1:4], np.s_[20:30, 10:20, 5:10])
    large, small = find_lesions(mask, SCHEMA, minimum_volume_mm3=0)
    assert (large.first.tolist(), large.last.tolist()) == ([20, 10, 5], [29, 19, 9])
    assert (small.first.tolist(), small.last.tolist()) == ([2, 3, 1], [4, 6, 3])
    assert large.volume_mm3 == pytest.approx(500 * 6)
    assert small.volume_mm3 == pytest.approx(36 * 6)
    doubt = np.full(mask.shape, 0.9)
    doubt[15:] = 0.01  # 500 voxels at a hundredth weigh less than 36 at nine tenths
    first, second = find_lesions(mask, SCHEMA, minimum_volume_mm3=0, tumour_probability=doubt)
    assert (first.first.tolist(), second.first.tolist()) == ([2, 3, 1], [20, 10, 5])
    assert (first.weight, second.weight) == (pytest.approx(36 * 0.9), pytest.approx(5))


def test_small_ones_go_but_never_all_of_them() -> None:
    mask = mask_of(np.s_[2:5, 3:7, 1:4], np.s_[20:22, 10:12, 5:7])
    assert len(find_lesions(mask, SCHEMA, minimum_volume_mm3=100)) == 1
    assert find_lesions(mask, SCHEMA, minimum_volume_mm3=1e6)[0].volume_mm3 == 216


def test_a_mask_without_tumour_has_none() -> None:
    assert find_lesions(mask_of(), SCHEMA, minimum_volume_mm3=0) == []
    without = LabelSchema(("background", "liver"))
    assert find_lesions(mask_of(), without, minimum_volume_mm3=0) == []


def test_a_probability_on_another_grid_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(3, 3, 3\) and the mask \(30, 20, 10\)"):
        find_lesions(mask_of(), SCHEMA, minimum_volume_mm3=0, tumour_probability=np.ones((3, 3, 3)))
