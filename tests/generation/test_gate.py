"""What counts as a copy; how the gate judges whole cases stands in ``test_balance.py``."""

from __future__ import annotations

import pytest
import torch

from neonet3d.generation.gate import copy_ratio
from neonet3d.metrics.memorisation import COPY_RATIO


def test_copies_stand_out_from_their_neighbours() -> None:
    generator = torch.Generator().manual_seed(0)
    training, new, noise = torch.randn(3, 20, 8, 8, 8, generator=generator).unbind(0)
    assert copy_ratio(training[3], training) == 0
    assert copy_ratio(training[3] + 0.1 * noise[0], training) < 0.1
    assert copy_ratio(new[0], training) > 0.9
    middle = training.mean(0)  # near to all of them, and a copy of none
    assert copy_ratio(middle, training) > 0.9 > COPY_RATIO
    assert copy_ratio(new[0], training[:1]) == 1
    # By hand: distances 1, 2 and 3 times a length.
    lengths = torch.stack([torch.full((4, 4, 4), x) for x in (3.0, 1.0, 2.0)])
    assert copy_ratio(torch.zeros(4, 4, 4), lengths) == pytest.approx(1 / 2)
