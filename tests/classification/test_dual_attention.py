from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neonet3d.classification import dual_attention
from neonet3d.classification.dual_attention import (
    ChannelAttention,
    DualAttentionBlock,
    DualSelfAttention,
    SpatialAttention,
)
from neonet3d.config import AttentionName


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded_block(attention: AttentionName) -> DualAttentionBlock:
    torch.manual_seed(1)
    return DualAttentionBlock(8, attention)


@torch.no_grad()
def test_cbam_multiplies_by_one_plus_w() -> None:
    block, x = seeded_block("cbam"), normal(2, 8, 6, 5, 4)
    assert block.channel is not None
    assert block.spatial is not None
    refined = F.silu(x + block.convolutions(x))
    channel = block.channel(refined)
    weighted = refined * (1 + channel)
    place = block.spatial(weighted)
    torch.testing.assert_close(block(x), weighted * (1 + place))
    assert channel.shape == (2, 8, 1, 1, 1)
    assert place.shape == (2, 1, 6, 5, 4)
    for weight in (channel, place):
        assert bool(((weight > 0) & (weight < 1)).all())
        assert float(weight.std()) > 0


@torch.no_grad()
def test_channel_attention_sees_what_and_spatial_attention_sees_where() -> None:
    """Channel attention is blind to where voxels lie, spatial attention to the channels' order."""
    torch.manual_seed(1)
    channel, spatial, x = ChannelAttention(8), SpatialAttention(), normal(1, 8, 6, 6, 6)
    shuffled = x.flatten(2)[:, :, torch.randperm(216)].reshape(x.shape)
    torch.testing.assert_close(channel(shuffled), channel(x))
    torch.testing.assert_close(spatial(x[:, torch.randperm(8)]), spatial(x))


@torch.no_grad()
def test_halves_and_none() -> None:
    x = normal(2, 8, 6, 5, 4)
    for attention, parts in (("channel", (True, False)), ("spatial", (False, True))):
        block = seeded_block(attention)  # type: ignore[arg-type]
        assert ((block.channel is not None), (block.spatial is not None)) == parts
        assert not torch.equal(block(x), F.silu(x + block.convolutions(x)))
    plain = seeded_block("none")
    torch.testing.assert_close(plain(x), F.silu(x + plain.convolutions(x)))


@torch.no_grad()
def test_self_attention_starts_as_the_identity_and_is_danets_sum() -> None:
    """Against the formulas of the paper, written out; grids as small as the keys are not pooled."""
    torch.manual_seed(1)
    layer, x = DualSelfAttention(8), normal(2, 8, 4, 3, 2)
    torch.testing.assert_close(layer(x), x)
    layer.place_gain.fill_(0.7)
    layer.channel_gain.fill_(0.3)
    q, k, v = (part(x).flatten(2) for part in (layer.query, layer.key, layer.value))
    places = ((q.transpose(1, 2) @ k) / q.shape[1] ** 0.5).softmax(-1) @ v.transpose(1, 2)
    flat = x.flatten(2)
    channels = ((flat @ flat.transpose(1, 2)) / flat.shape[2]).softmax(-1) @ flat
    expected = x + 0.7 * places.transpose(1, 2).reshape(x.shape) + 0.3 * channels.reshape(x.shape)
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
def test_large_grids_are_pooled_for_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dual_attention, "MOST_KEYS", 30)
    torch.manual_seed(1)
    layer = DualSelfAttention(8)
    layer.place_gain.fill_(1.0)
    seen: list[Tensor] = []
    layer.key.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    found = layer(normal(1, 8, 7, 6, 4))
    assert found.shape == (1, 8, 7, 6, 4)
    assert seen[0].shape == (1, 8, 4, 3, 2)


@pytest.mark.parametrize("attention", get_args(AttentionName))
def test_every_attention_learns(attention: AttentionName) -> None:
    block, x = seeded_block(attention), normal(2, 8, 6, 5, 4)
    if block.both is not None:
        with torch.no_grad():  # at the start nothing behind the gains has a gradient
            block.both.place_gain.fill_(0.5)
            block.both.channel_gain.fill_(0.5)
    block(x).square().sum().backward()
    still = [name for name, p in block.named_parameters() if p.grad is None or not p.grad.any()]
    assert still in ([], ["both.key.bias"])  # a shift of all keys moves no softmax
