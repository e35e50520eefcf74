"""3D Dual Attention Blocks: which channels and which places matter, behind one switch.

``cbam``: pooled descriptors weigh channels, then places (Woo et al. 2018, arXiv 1807.06521), in
3D. ``channel`` and ``spatial``: one half of it. ``danet``: self-attention over places and over
channels, added (Fu et al. 2019, arXiv 1809.02983). ``none``: the convolutions alone. The papers
name the block and say no more, so which attention it is, its sizes and the form x (1 + w) are our
choice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.config import AttentionName

MOST_KEYS = 1024  # voxels that the self-attention over places looks at; finer maps are pooled
Maps = Float[Tensor, "b c x y z"]


class ChannelAttention(nn.Module):
    """w (b, c, 1, 1, 1) from average- and max-pooled descriptors through a shared MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels // 4), nn.SiLU(), nn.Linear(channels // 4, channels)
        )

    def forward(self, x: Maps) -> Float[Tensor, "b c 1 1 1"]:
        weight = torch.sigmoid(self.mlp(x.mean((2, 3, 4))) + self.mlp(x.amax((2, 3, 4))))
        return weight[..., None, None, None]


class SpatialAttention(nn.Module):
    """w (b, 1, x, y, z) from the channels' mean and maximum through a 3x3x3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(2, 1, 3, padding=1)

    def forward(self, x: Maps) -> Float[Tensor, "b 1 x y z"]:
        summary = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.convolution(summary))


class DualSelfAttention(nn.Module):
    """DANet's sum of self-attention over places and over channels; it starts as the identity.

    Keys and values of the places are average-pooled to at most ``MOST_KEYS``, so that memory grows
    with the voxels and not with their square.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.query = nn.Conv3d(channels, inner, 1)
        self.key = nn.Conv3d(channels, inner, 1)
        self.value = nn.Conv3d(channels, channels, 1)
        self.place_gain = nn.Parameter(torch.zeros(()))
        self.channel_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Maps) -> Maps:
        pooled = x
        while pooled[0, 0].numel() > MOST_KEYS:
            pooled = F.avg_pool3d(pooled, 2, ceil_mode=True)
        query, key, value = self.query(x), self.key(pooled), self.value(pooled)
        q, k, v = (part.flatten(2).transpose(1, 2) for part in (query, key, value))
        places = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        flat = x.flatten(2).float()
        flat = flat / flat.shape[2] ** 0.5
        alike = (flat @ flat.transpose(1, 2)).softmax(-1).to(x.dtype)
        channels = (alike @ x.flatten(2)).reshape(x.shape)
        return x + self.place_gain * places + self.channel_gain * channels


class DualAttentionBlock(nn.Module):
    """Residual 3D convolutions, then attention; weights are applied as x (1 + w)."""

    def __init__(self, channels: int, attention: AttentionName) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
            nn.SiLU(),
            nn.Conv3d(channels, channels, 3, padding=1),
            nn.GroupNorm(4, channels),
        )
        both = attention == "cbam"
        self.channel = ChannelAttention(channels) if both or attention == "channel" else None
        self.spatial = SpatialAttention() if both or attention == "spatial" else None
        self.both = DualSelfAttention(channels) if attention == "danet" else None

    def forward(self, x: Maps) -> Maps:
        x = F.silu(x + self.convolutions(x))
        for weigh in (self.channel, self.spatial):
            if weigh is not None:
                x = x * (1 + weigh(x))
        return x if self.both is None else self.both(x)
