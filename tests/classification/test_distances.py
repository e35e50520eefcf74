from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from neonet3d.classification.distances import batch_distances, signed_distances
from neonet3d.cohort.patches import Patches
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema, Triple

SCHEMA = LabelSchema(("background", "liver", "tumour"))


def ball(radius: float, n: int = 24) -> np.ndarray:
    """A tumour of such a radius in liver, and a corner of background."""
    axis = np.arange(n) - (n - 1) / 2
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(axis, axis, axis, indexing="ij")))
    label_map = np.where(distance < radius, 2, 1).astype(np.uint8)
    label_map[:2, :2, :2] = 0
    return label_map


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.5, 2.5, 2.5)])
def test_deep_inside_is_positive_and_far_outside_negative(spacing_mm: Triple) -> None:
    liver, tumour = signed_distances(ball(6), SCHEMA, spacing_mm=spacing_mm)
    assert tumour[12, 12, 12] == pytest.approx(np.log1p(6), abs=0.15)
    assert tumour[12, 12, 22] == pytest.approx(-np.log1p(5), abs=0.15)
    assert (tumour > 0).sum() == (ball(6) == 2).sum()
    assert liver[0, 0, 0] < 0 < liver[0, 12, 12]
    assert tumour.dtype == np.float32


def test_a_thick_part_is_deeper_than_a_thin_one() -> None:
    small, large = (signed_distances(ball(r), SCHEMA, spacing_mm=(1, 1, 1))[1] for r in (3, 8))
    assert large.max() > small.max() + 0.5


def test_distances_are_in_mm_along_every_axis() -> None:
    plate = np.zeros((3, 3, 20), np.uint8)
    plate[:, :, :1] = 2
    away = signed_distances(plate, SCHEMA, spacing_mm=(1.0, 1.0, 4.0))[1][1, 1]
    size_mm = 4 ** (1 / 3)
    assert away[5] == pytest.approx(-np.log1p(20 / size_mm), abs=1e-4)


def test_an_absent_class_is_as_far_as_the_patch_is_long() -> None:
    nothing = np.zeros((6, 8, 10), np.uint8)
    found = signed_distances(nothing, SCHEMA, spacing_mm=(1, 1, 1))
    assert found.shape == (2, 6, 8, 10)
    np.testing.assert_allclose(found, -np.log1p(np.sqrt(36 + 64 + 100)), rtol=1e-5)


def test_a_batch_is_in_the_mm_of_each_case_and_wants_masks() -> None:
    maps = np.stack([ball(5), ball(5)])
    patches = Patches(
        images=torch.zeros(maps.shape),
        label_maps=torch.from_numpy(maps),
        outcomes=torch.zeros(2, dtype=torch.long),
        synthetic=torch.zeros(2, dtype=torch.bool),
        spacing_mm=(1.0, 1.0, 2.0),
        log_scale=torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0]]),
    )
    found = batch_distances(patches, SCHEMA)
    for one, spacing_mm in zip(found.numpy(), patches.spacings_mm, strict=True):
        expected = signed_distances(ball(5), SCHEMA, spacing_mm=spacing_mm)
        np.testing.assert_allclose(one, expected, atol=1e-5)
    assert not torch.equal(found[0], found[1])
    with pytest.raises(InputError, match="needs a mask for every case"):
        batch_distances(replace(patches, label_maps=None), SCHEMA)
