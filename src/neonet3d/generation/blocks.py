"""The few blocks that the autoencoder, the U-Net and the ControlNet are made of."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

LayerT = TypeVar("LayerT", bound=nn.Conv3d | nn.Linear)


def zero_initialised(layer: LayerT) -> LayerT:
    """Zero weight and bias: a branch that ends here begins as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel, without a shift (Ba et al. 2016).

    No statistic reaches across voxels, so a volume encoded in tiles gives the same values as the
    whole; a group norm makes that impossible. What it returns is laid out channels last, which
    convolutions keep to.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:
        return F.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight).movedim(-1, 1)


def group_norm(channels: int) -> nn.GroupNorm:
    """Sixteen channels a group, or one group where they do not divide.

    Of a channels-last grid torch normalises smaller groups several times more slowly.
    """
    return nn.GroupNorm(channels // 16 if channels % 16 == 0 else 1, channels)


class ConditionLinear(nn.Linear):
    """A layer that conditions go through: float32 under autocast too.

    A row for each patch is too little for bf16 to gain anything, and casting takes longer than the
    product.
    """

    def forward(self, x: Float[Tensor, "b e"]) -> Float[Tensor, "b d"]:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def scale_and_shift(
    film: ConditionLinear, condition: Float[Tensor, "b e"], h: Float[Tensor, "b c x y z"]
) -> Float[Tensor, "b c x y z"]:
    """FiLM (Perez et al. 2018): ``h * (1 + scale) + shift``, both from the condition."""
    told = film(condition).to(h.dtype)[..., None, None, None]
    scale, shift = told.chunk(2, dim=1)
    return torch.addcmul(shift, h, 1 + scale)


class ResidualBlock(nn.Module):
    """norm, SiLU, 3x3x3 convolution, twice, plus the input. The second convolution starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm2 = ChannelNorm(channels)
        self.conv2 = zero_initialised(nn.Conv3d(channels, channels, 3, padding=1))

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class FilmResidualBlock(nn.Module):
    """A ``ResidualBlock`` whose second norm a condition scales and shifts (FiLM)."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.film = zero_initialised(ConditionLinear(embedding, 2 * channels))
        self.norm2 = ChannelNorm(channels)
        self.conv2 = zero_initialised(nn.Conv3d(channels, channels, 3, padding=1))

    def forward(
        self, x: Float[Tensor, "b c x y z"], condition: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b c x y z"]:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        return x + self.conv2(F.silu(scale_and_shift(self.film, condition, h)))

    def path(self) -> tuple[nn.Module, ...]:
        """The layers that reach across voxels or keep to one, without the condition's."""
        return (self.norm1, self.conv1, self.norm2, self.conv2)


class FilmBlock(nn.Module):
    """A ``FilmResidualBlock`` with group norms, and any number of channels.

    For latents, which are small enough to be seen as a whole.
    """

    def __init__(self, channels_in: int, channels: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv3d(channels_in, channels, 3, padding=1)
        self.film = zero_initialised(ConditionLinear(embedding, 2 * channels))
        self.norm2 = group_norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_initialised(nn.Conv3d(channels, channels, 3, padding=1))
        self.skip = (
            nn.Conv3d(channels_in, channels, 1) if channels_in != channels else nn.Identity()
        )

    def forward(
        self, x: Float[Tensor, "b c x y z"], condition: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b d x y z"]:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        h = F.silu(scale_and_shift(self.film, condition, h))
        return self.skip(x) + self.conv2(self.dropout(h))


class SelfAttention(nn.Module):
    """Self-attention over all voxels of a small grid, four heads, residual, starts as identity."""

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Conv3d(channels, 3 * channels, 1)
        self.out = zero_initialised(nn.Conv3d(channels, channels, 1))

    def forward(self, x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c x y z"]:
        b, c, *size = x.shape
        qkv = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, -1)
        q, k, v = qkv.transpose(-1, -2).unbind(1)  # each (b, heads, voxels, c / heads)
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(-1, -2).reshape(b, c, *size))


def sinusoidal_embedding(t: Float[Tensor, " b"], size: int) -> Float[Tensor, "b size"]:
    """Cosines and sines of 1000 t at log-spaced frequencies (Vaswani 2017)."""
    frequency = torch.exp(
        -math.log(10_000) * torch.arange(size // 2, device=t.device) / (size // 2)
    )
    angle = 1000 * t[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)
