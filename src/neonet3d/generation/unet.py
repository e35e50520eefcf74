"""The flow U-Net: velocity of a latent, given time and outcome label.

The network adds to the closed form of a Gaussian field (``gaussian.py``), with its input and output
scaled by the deviation of x_t:

    v(x, t, y) = v_gauss(x, t)  +  F(x / s(t), t, y) / s(t),    s(t)^2 = t^2 + (1 - t)^2

Time, outcome label and numbers (``condition.py``) scale and shift the features of every block. The
classes' fractions in each latent voxel stand beside the latent: so the organs need not wait for the
ControlNet, which brings what is finer. That is our choice; a share of training draws has no mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.config import UNetConfig
from neonet3d.generation.blocks import (
    ConditionLinear,
    FilmBlock,
    SelfAttention,
    group_norm,
    sinusoidal_embedding,
    zero_initialised,
)
from neonet3d.generation.condition import N_LABELS, Condition
from neonet3d.generation.gaussian import GaussianVelocity
from neonet3d.segmentation.convolution import guard_short_grids
from neonet3d.types import LatentBatch, Shape


@dataclass(frozen=True)
class EncoderStates:
    """What the U-Net's encoder hands to its decoder; a ControlNet adds to each."""

    fine: Tensor  # (b, c0, x, y, z)
    coarse: Tensor  # (b, c1, x/2, y/2, z/2)
    middle: Tensor  # (b, c1, x/2, y/2, z/2)

    def __add__(self, other: EncoderStates) -> EncoderStates:
        return EncoderStates(
            self.fine + other.fine, self.coarse + other.coarse, self.middle + other.middle
        )


class UNetEncoder(nn.Module):
    """Embedding of time and condition, the way down, the middle; the part a ControlNet copies."""

    def __init__(
        self, latent_channels: int, config: UNetConfig, n_numbers: int, n_fractions: int
    ) -> None:
        super().__init__()
        c0, c1 = config.channels
        self.time_channels = c0
        size = 2 * c1
        self.embed_time = nn.Sequential(
            ConditionLinear(c0, size), nn.SiLU(), ConditionLinear(size, size)
        )
        self.embed_label = nn.Embedding(N_LABELS + 1, size)
        self.embed_numbers = zero_initialised(ConditionLinear(n_numbers, size, bias=False))
        self.n_fractions = n_fractions
        told = n_fractions + 1 if n_fractions else 0  # and a channel that says whether they are
        self.stem = nn.Conv3d(latent_channels + told, c0, 3, padding=1)
        self.fine = FilmBlock(c0, c0, size, config.dropout)
        self.down = nn.Conv3d(c0, c1, 3, stride=2, padding=1)
        self.coarse = FilmBlock(c1, c1, size, config.dropout)
        self.attention = SelfAttention(c1)
        self.middle = FilmBlock(c1, c1, size, config.dropout)

    def embed(self, t: Float[Tensor, " b"], condition: Condition) -> Float[Tensor, "b e"]:
        time = self.embed_time(sinusoidal_embedding(t, self.time_channels))
        told = self.embed_label(condition.label) + self.embed_numbers(condition.numbers)
        return nn.functional.silu(time + told)

    def forward(
        self,
        x: LatentBatch,
        embedding: Float[Tensor, "b e"],
        fractions: Float[Tensor, "b k x y z"] | None,
        hint: Tensor | None = None,
    ) -> EncoderStates:
        """``hint`` (b, c0, x, y, z) is added after the stem; only a ControlNet gives one."""
        if self.n_fractions:
            x = torch.cat([x, self._told(x, fractions)], dim=1)
        h = self.stem(x)
        if hint is not None:
            h = h + hint
        fine = self.fine(h, embedding)
        coarse = self.coarse(self.down(fine), embedding)
        return EncoderStates(fine, coarse, self.middle(self.attention(coarse), embedding))

    def _told(self, x: LatentBatch, fractions: Tensor | None) -> Float[Tensor, "b k x y z"]:
        """The fractions and a channel of ones, or zeros where there are none."""
        if fractions is None:
            return x.new_zeros(len(x), self.n_fractions + 1, *x.shape[2:])
        return torch.cat([fractions, torch.ones_like(fractions[:, :1])], dim=1)


class FlowUNet(nn.Module):
    """dx/dt of the rectified flow. Latent sizes must be even.

    Args:
        n_numbers: how many numbers its conditions hold.
        n_fractions: how many classes their fractions have; 0 for a U-Net that is told no mask.
    """

    def __init__(
        self,
        latent_channels: int,
        latent_shape: Shape,
        config: UNetConfig,
        n_numbers: int,
        n_fractions: int,
    ) -> None:
        super().__init__()
        c0, c1 = config.channels
        size = 2 * c1
        self.gaussian = GaussianVelocity(latent_channels, latent_shape)
        self.encoder = UNetEncoder(latent_channels, config, n_numbers, n_fractions)
        self.decode_coarse = FilmBlock(c1, c1, size, config.dropout)
        self.up = nn.ConvTranspose3d(c1, c0, 2, stride=2)
        self.decode_fine = FilmBlock(c0, c0, size, config.dropout)
        self.head = nn.Sequential(
            group_norm(c0),
            nn.SiLU(),
            zero_initialised(nn.Conv3d(c0, latent_channels, 3, padding=1)),
        )
        guard_short_grids(self)  # half a latent's grid can be one voxel thin

    def forward(
        self,
        x: LatentBatch,
        t: Float[Tensor, " b"],
        condition: Condition,
        control: EncoderStates | None = None,
    ) -> LatentBatch:
        """Velocity at (x, t); ``control`` is a ControlNet's."""
        return self.gaussian(x, t) + self.excess(x, t, condition, control)

    def excess(
        self,
        x: LatentBatch,
        t: Float[Tensor, " b"],
        condition: Condition,
        control: EncoderStates | None = None,
    ) -> LatentBatch:
        """Velocity at (x, t) minus that of the Gaussian field."""
        embedding = self.encoder.embed(t, condition)
        scale = path_scale(t)
        states = self.encoder(x / scale, embedding, condition.fractions)
        if control is not None:
            states = states + control
        h = self.decode_coarse(states.middle + states.coarse, embedding)
        h = self.decode_fine(self.up(h) + states.fine, embedding)
        found: Tensor = self.head(h).float() / scale
        return found


def path_scale(t: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1 1 1"]:
    """Standard deviation of x_t for a latent of unit variance."""
    return (t.square() + (1 - t).square()).sqrt().view(-1, 1, 1, 1, 1)
