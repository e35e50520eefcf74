from __future__ import annotations

import pytest
import torch
from torch import nn

from neonet3d.generation.blocks import (
    ChannelNorm,
    ConditionLinear,
    FilmBlock,
    ResidualBlock,
    SelfAttention,
    group_norm,
    sinusoidal_embedding,
    zero_initialised,
)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 16, 6, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer", [nn.Conv3d(2, 3, 3), nn.Linear(2, 3, bias=False)])
def test_zero_initialised_gives_zero(layer: nn.Conv3d | nn.Linear) -> None:
    assert zero_initialised(layer) is layer
    assert all(not bool(p.any()) for p in layer.parameters())


def test_blocks_begin_as_the_identity(x: torch.Tensor) -> None:
    condition = torch.randn(2, 12)
    assert torch.equal(ResidualBlock(16)(x), x)
    assert torch.equal(SelfAttention(16)(x), x)
    assert torch.equal(FilmBlock(16, 16, 12, 0.5)(x, condition), x)
    widening = FilmBlock(16, 24, 12, 0.0)
    assert torch.equal(widening(x, condition), widening.skip(x))


def test_a_block_that_begins_at_zero_still_learns(x: torch.Tensor) -> None:
    block = ResidualBlock(16)
    block(x).square().sum().backward()
    assert block.conv2.weight.grad is not None
    assert bool(block.conv2.weight.grad.any())


def test_film_scales_and_shifts_after_the_norm(x: torch.Tensor) -> None:
    block = FilmBlock(16, 16, 4, 0.0).eval()
    nn.init.dirac_(block.conv2.weight)
    nn.init.zeros_(block.film.weight)
    with torch.no_grad():
        block.film.bias[:16] = -1  # scale by 0 ...
        block.film.bias[16:] = 2  # ... and shift to 2: what is left does not depend on the image
    expected = x + nn.functional.silu(torch.tensor(2.0))
    torch.testing.assert_close(block(x, torch.randn(2, 4)), expected)


def test_channel_norm_of_a_tile_is_the_tile_of_the_norm(x: torch.Tensor) -> None:
    norm = ChannelNorm(16)
    nn.init.uniform_(norm.weight)
    tile = norm(x[..., 2:5, :2, 1:])
    torch.testing.assert_close(norm(x)[..., 2:5, :2, 1:], tile, rtol=1e-6, atol=1e-7)


def test_channel_norm_has_unit_rms_and_no_scale(x: torch.Tensor) -> None:
    y = ChannelNorm(16)(x)
    torch.testing.assert_close(y.square().mean(1), torch.ones(2, 6, 4, 4), rtol=1e-3, atol=0)
    torch.testing.assert_close(ChannelNorm(16)(100 * x), y, rtol=1e-3, atol=1e-5)
    assert ChannelNorm(16)(x.bfloat16()).dtype == torch.bfloat16


def test_attention_knows_no_order_of_voxels(x: torch.Tensor) -> None:
    attention = SelfAttention(16)
    nn.init.normal_(attention.out.weight)
    turned = attention(x.flip(2))
    torch.testing.assert_close(turned, attention(x).flip(2), rtol=1e-4, atol=1e-4)
    far = x.clone()
    far[:, :, -1, -1, -1] += 10
    assert bool((attention(far) - attention(x))[:, :, 0, 0, 0].any())


def test_sinusoids_lie_on_circles() -> None:
    t = torch.tensor([0.0, 0.25, 1.0])
    e = sinusoidal_embedding(t, 8)
    torch.testing.assert_close(e[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    torch.testing.assert_close(e[:, :4].square() + e[:, 4:].square(), torch.ones(3, 4))
    torch.testing.assert_close(e[:, 0], torch.cos(1000 * t))


def test_conditions_stay_in_float32_under_autocast() -> None:
    layer, condition = ConditionLinear(6, 4), torch.randn(2, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.nn.Linear(6, 4)(condition).dtype == torch.bfloat16
        told = layer(condition)
    assert told.dtype == torch.float32
    torch.testing.assert_close(told, condition @ layer.weight.T + layer.bias)


@pytest.mark.parametrize(("channels", "groups"), [(16, 1), (64, 4), (96, 6), (24, 1)])
def test_groups_have_sixteen_channels(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_channel_norm_knows_no_level(x: torch.Tensor) -> None:
    torch.testing.assert_close(ChannelNorm(16)(x + 5), ChannelNorm(16)(x), rtol=1e-3, atol=1e-4)
