"""The networks of the hierarchical GAN (``ha_gan.py``), sized for patches."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from neonet3d.generation.blocks import ChannelNorm
from neonet3d.generation.rivals.batches import fractions
from neonet3d.generation.rivals.layers import (
    MaskedBlock,
    group_norm,
    halvings,
    leaky_relu,
    upsampled,
)
from neonet3d.segmentation.convolution import ShortGridConv3d
from neonet3d.types import ImageBatch, OneHotBatch, Shape

COARSE = 4  # voxels an edge of what the trunk and the low-resolution branch draw
CODE = 128
TRUNK = (128, 64)  # channels at 1/8 and 1/4 of the grid
FINE = 32  # at 1/2
UNITS = 64  # of the discriminators' last hidden layer


class HierarchicalGenerator(nn.Module):
    """A trunk at a quarter of the grid, a branch that ends there, and one that goes on to the top.

    The upper branch sees a slab or the whole; its norms keep to a voxel, so both agree but for the
    slab's outermost voxels.
    """

    def __init__(self, shape: Shape, n_masks: int, n_labels: int) -> None:
        super().__init__()
        self.base = tuple(n // 8 for n in shape)
        wide, narrow = TRUNK
        self.begin = nn.Linear(CODE + n_labels, wide * math.prod(self.base))
        self.blocks = nn.ModuleList(
            [
                MaskedBlock(wide, n_masks, wide, group_norm(wide)),
                MaskedBlock(wide, n_masks, narrow, group_norm(narrow)),
                MaskedBlock(narrow, n_masks, narrow, group_norm(narrow)),
            ]
        )
        self.low = nn.Sequential(
            nn.Conv3d(narrow, FINE, 3, padding=1),
            group_norm(FINE),
            nn.ReLU(),
            nn.Conv3d(FINE, 1, 3, padding=1),
        )
        self.middle = MaskedBlock(narrow, n_masks, FINE, ChannelNorm(FINE))
        self.end = nn.Conv3d(FINE + n_masks, 1, 3, padding=1)

    def trunk(
        self, code: Float[Tensor, "b c"], label: Float[Tensor, "b l"], masks: OneHotBatch
    ) -> Float[Tensor, "b d x//4 y//4 z//4"]:
        """Features of the whole; masks are at full resolution."""
        h = self.begin(torch.cat([code, label], dim=1)).unflatten(1, (-1, *self.base))
        h = upsampled(self.blocks[0](h, fractions(masks, 2 * COARSE)))
        for block in self.blocks[1:]:
            h = block(h, fractions(masks, COARSE))
        return h

    def small(self, h: Float[Tensor, "b d x//4 y//4 z//4"]) -> ImageBatch:
        """The whole image at a quarter of the resolution."""
        return torch.tanh(self.low(h).float())

    def fine(self, h: Float[Tensor, "b d s//4 y//4 z//4"], masks: OneHotBatch) -> ImageBatch:
        """A slab, or the whole, at full resolution, of the trunk's features and the masks there."""
        h = self.middle(upsampled(h), fractions(masks, 2))
        return torch.tanh(self.end(torch.cat([upsampled(h), masks], dim=1)).float())


class SlabDiscriminator(nn.Module):
    """Logits (b, 1 + l) of a slab, the mask beside it, and of where it lies."""

    def __init__(self, slab: Shape, n_masks: int, n_classes: int) -> None:
        super().__init__()
        x, y, z = slab
        self.down = nn.Sequential(
            *halvings((1 + n_masks, 32, 64), leaky_relu, wrap=spectral_norm),
            spectral_norm(ShortGridConv3d(64, 128, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1))),
            leaky_relu(),
        )
        features = 128 * (x // 4) * (y // 8) * (z // 8)
        self.hidden = nn.Sequential(spectral_norm(nn.Linear(features, UNITS)), leaky_relu())
        self.end = nn.Sequential(
            spectral_norm(nn.Linear(UNITS + 1, UNITS)),
            leaky_relu(),
            spectral_norm(nn.Linear(UNITS, 1 + n_classes)),
        )

    def forward(self, slab: ImageBatch, masks: OneHotBatch, place: float) -> Float[Tensor, "b 1+l"]:
        """``place`` of the slab's first plane, from 0 to 1."""
        h = self.hidden(self.down(torch.cat([slab, masks], dim=1)).flatten(1))
        logits: Tensor = self.end(torch.cat([h, h.new_full((len(h), 1), place)], dim=1))
        return logits.float()


class SmallDiscriminator(nn.Module):
    """Logits (b, 1 + l) of a whole image at a quarter of the resolution, fractions beside it."""

    def __init__(self, shape: Shape, n_masks: int, n_classes: int) -> None:
        super().__init__()
        self.down = halvings((1 + n_masks, 64, 128), leaky_relu, wrap=spectral_norm)
        # A convolution of 4 with stride 2 gives n // 2 voxels of n.
        features = 128 * math.prod(n // COARSE // 2 // 2 for n in shape)
        self.end = nn.Sequential(
            spectral_norm(nn.Linear(features, UNITS)),
            leaky_relu(),
            spectral_norm(nn.Linear(UNITS, 1 + n_classes)),
        )

    def forward(self, small: ImageBatch, shares: OneHotBatch) -> Float[Tensor, "b 1+l"]:
        logits: Tensor = self.end(self.down(torch.cat([small, shares], dim=1)).flatten(1))
        return logits.float()


class FeatureEncoder(nn.Module):
    """An image, or a slab of it, as the trunk's features; norms keep to a voxel."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv3d(1, FINE, 4, stride=2, padding=1),
            ChannelNorm(FINE),
            nn.ReLU(),
            nn.Conv3d(FINE, FINE, 3, padding=1),
            ChannelNorm(FINE),
            nn.ReLU(),
            nn.Conv3d(FINE, TRUNK[1], 4, stride=2, padding=1),
            ChannelNorm(TRUNK[1]),
            nn.ReLU(),
        )

    def forward(self, images: ImageBatch) -> Float[Tensor, "b d x//4 y//4 z//4"]:
        features: Tensor = self.down(images)
        return features


class CodeEncoder(nn.Module):
    """The features of a whole image as a code."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.down = halvings((TRUNK[1], TRUNK[0]), nn.ReLU)
        self.end = nn.Linear(TRUNK[0] * math.prod(n // COARSE // 2 for n in shape), CODE)

    def forward(self, features: Float[Tensor, "b d x//4 y//4 z//4"]) -> Float[Tensor, "b c"]:
        code: Tensor = self.end(self.down(features).flatten(1))
        return code
