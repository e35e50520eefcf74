from __future__ import annotations

import pytest
import torch

from neonet3d.config import LoopConfig, SegmenterConfig
from neonet3d.segmentation.network import HaarUNet, size_multiple

LOOP = LoopConfig(steps=1, batch_size=1, learning_rate=1e-3, weight_decay=0, ema_decay=0)


def config(*channels: int) -> SegmenterConfig:
    return SegmenterConfig(channels=channels, spacing_mm=None, patch=(16, 16, 16), loop=LOOP)


@pytest.mark.parametrize("channels", [(4, 8), (4, 8, 12), (4, 4, 8, 8)])
@torch.no_grad()
def test_logits_come_back_on_the_grid(channels: tuple[int, ...]) -> None:
    n = size_multiple(config(*channels))
    assert n == 2 ** len(channels)
    torch.manual_seed(0)
    network = HaarUNet(config(*channels), 3)
    logits = network(torch.randn(2, 1, 3 * n, 2 * n, 2 * n))
    assert logits.shape == (2, 3, 3 * n, 2 * n, 2 * n)
    assert logits.dtype == torch.float32
    assert bool(torch.isfinite(logits).all())


@torch.no_grad()
def test_a_voxel_is_seen_at_full_resolution() -> None:
    """The wavelet stem halves the grid and still tells neighbours apart."""
    torch.manual_seed(0)
    network = HaarUNet(config(4, 8), 2).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    base, changes = network(image), []
    for i in (8, 9):
        moved = image.clone()
        moved[0, 0, i, 8, 8] += 3
        changes.append(network(moved) - base)
    assert all(bool(change.any()) for change in changes)
    assert not torch.allclose(*changes)


def test_half_precision_gives_float_logits() -> None:
    network = HaarUNet(config(4, 8), 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.randn(1, 1, 16, 8, 8))
    assert logits.dtype == torch.float32
