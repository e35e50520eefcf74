from __future__ import annotations

import numpy as np

from neonet3d.metrics.box import bounding_box


def test_the_smallest_box() -> None:
    mask = np.zeros((9, 8, 7), bool)
    mask[2, 5, 6] = mask[4, 3, 1] = True
    assert bounding_box(mask) == (slice(2, 5), slice(3, 6), slice(1, 7))


def test_an_empty_mask_has_none() -> None:
    assert bounding_box(np.zeros((2, 2, 2), bool)) is None
