"""The ControlNet: anatomy steers a frozen flow U-Net (Zhang et al. 2023, arXiv 2302.05543).

A trainable copy of the U-Net's encoder sees the label map and adds to the U-Net's states through
zero-initialised convolutions, so that at the start the output is the U-Net's bit for bit. The map
comes in at *full* resolution: space-to-depth, then a strided convolution. Nearest-neighbour
shrinking to the latent grid would lose a vein that is one voxel wide.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.generation.autoencoder import DOWNSAMPLING
from neonet3d.generation.blocks import zero_initialised
from neonet3d.generation.condition import Condition
from neonet3d.generation.unet import EncoderStates, FlowUNet, path_scale
from neonet3d.types import LabelBatch, LatentBatch


def space_to_depth(x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b 8*c x//2 y//2 z//2"]:
    """Each 2x2x2 block of voxels becomes eight channels; nothing is lost."""
    b, c, *size = x.shape
    half = [n // 2 for n in size]
    blocks = x.reshape(b, c, half[0], 2, half[1], 2, half[2], 2)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, 8 * c, *half)


def one_hot(label_map: LabelBatch, n_classes: int) -> Float[Tensor, "b k x y z"]:
    """Memberships of the foreground classes 1 ... n-1 (background is where all are 0)."""
    values = torch.arange(1, n_classes, dtype=label_map.dtype, device=label_map.device)
    return (label_map[:, None] == values.view(-1, 1, 1, 1)).float()


def class_fractions(label_map: LabelBatch, n_classes: int) -> Float[Tensor, "b k x y z"]:
    """Share of each foreground class in each latent voxel."""
    return F.avg_pool3d(one_hot(label_map, n_classes), DOWNSAMPLING)


class ControlNet(nn.Module):
    """States to add to those of ``unet`` for a given label map.

    The map goes through ``hint_of`` once for all steps of a sampler.

    Args:
        guidance: of the mask, which it is trained to bring about (``objectives.ControlObjective``);
            1 is none.
    """

    def __init__(self, unet: FlowUNet, n_classes: int, guidance: float = 1.0) -> None:
        super().__init__()
        if n_classes < 2:
            raise ValueError("a ControlNet needs at least one class beside the background")
        self.n_classes, self.guidance = n_classes, guidance
        self.encoder = copy.deepcopy(unet.encoder).requires_grad_(True)
        c0, c1 = self.encoder.stem.out_channels, self.encoder.down.out_channels
        self.hint = nn.Sequential(
            nn.Conv3d(8 * (n_classes - 1), c0 // 2, 3, padding=1),
            nn.SiLU(),
            nn.Conv3d(c0 // 2, c0, 2, stride=2),
            nn.SiLU(),
            nn.Conv3d(c0, c0, 3, padding=1),
        )
        self.out_fine = zero_initialised(nn.Conv3d(c0, c0, 1))
        self.out_coarse = zero_initialised(nn.Conv3d(c1, c1, 1))
        self.out_middle = zero_initialised(nn.Conv3d(c1, c1, 1))

    def hint_of(self, label_map: LabelBatch) -> Float[Tensor, "b c x y z"]:
        """Features of a map of (b, 4x, 4y, 4z) voxels for a latent of (b, ., x, y, z)."""
        hint: Tensor = self.hint(space_to_depth(one_hot(label_map, self.n_classes)))
        return hint

    def forward(
        self,
        x: LatentBatch,
        t: Float[Tensor, " b"],
        condition: Condition,
        hint: Float[Tensor, "b c x y z"],
    ) -> EncoderStates:
        """``hint`` is ``hint_of`` the label maps."""
        states = self.encoder(
            x / path_scale(t), self.encoder.embed(t, condition), condition.fractions, hint
        )
        return EncoderStates(
            self.out_fine(states.fine),
            self.out_coarse(states.coarse),
            self.out_middle(states.middle),
        )
