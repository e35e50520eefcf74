from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch

from neonet3d.segmentation.averaging import average_slabs
from neonet3d.segmentation.tiling import Box
from neonet3d.segmentation.windows import Slab

SHAPE = (20, 9, 7)


def stream(probability: torch.Tensor, box: Box, cuts: list[int]) -> Iterator[Slab]:
    """A box of class probabilities in slabs that end at the cuts."""
    edges = [box[0].start, *cuts, box[0].stop]
    for first, stop in pairwise(edges):
        place = (slice(first, stop), box[1], box[2])
        yield Slab(place, probability[:, *place])


def dense(probability: torch.Tensor, box: Box) -> torch.Tensor:
    out = torch.zeros(3, *SHAPE)
    out[0] = 1
    out[:, *box] = probability[:, *box]
    return out


@pytest.mark.parametrize(
    ("boxes", "cuts"),
    [
        (((0, 20, 0, 9, 0, 7), (0, 20, 0, 9, 0, 7)), ([5, 11], [11])),
        (((2, 9, 1, 4, 0, 7), (4, 18, 3, 9, 2, 5)), ([3, 6], [10])),
        (((0, 5, 0, 9, 0, 7), (12, 20, 2, 3, 0, 1)), ([], [13, 14])),
        (((3, 4, 0, 1, 0, 1), (0, 20, 0, 9, 0, 7), (3, 9, 4, 6, 1, 7)), ([], [4], [5])),
    ],
)
def test_the_mean_of_streams(boxes: tuple[tuple[int, ...], ...], cuts: tuple[list[int]]) -> None:
    torch.manual_seed(0)
    streams, expected = [], torch.zeros(3, *SHAPE)
    for (a, b, c, d, e, f), ends in zip(boxes, cuts, strict=True):
        box = (slice(a, b), slice(c, d), slice(e, f))
        probability = torch.rand(3, *SHAPE).softmax(0)
        streams.append(stream(probability, box, ends))
        expected += dense(probability, box) / len(boxes)
    found, at = torch.zeros(3, *SHAPE), 0
    found[0] = 1
    for slab in average_slabs(streams, 3):
        assert slab.box[0].start >= at
        at = slab.box[0].stop
        found[:, *slab.box] = slab.probability
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_slabs_no_mean() -> None:
    assert list(average_slabs([iter(()), iter(())], 3)) == []
