"""The segmenter's network: MONAI's residual U-Net between a Haar transform and its inverse.

The wavelet stem halves every axis for free, so that the U-Net works at half resolution and sees
four times the context for the same effort; its logits come back to full resolution through the
inverse transform, which loses nothing.
"""

from __future__ import annotations

from jaxtyping import Float
from monai.networks.nets import UNet
from torch import Tensor, nn

from neonet3d.config import SegmenterConfig
from neonet3d.generation.wavelet import haar, haar_inverse


class HaarUNet(nn.Module):
    """(b, 1, x, y, z) in [-1, 1] -> (b, k, x, y, z) logits; see ``size_multiple``."""

    def __init__(self, config: SegmenterConfig, n_classes: int) -> None:
        super().__init__()
        self.unet = UNet(
            spatial_dims=3,
            in_channels=8,
            out_channels=8 * n_classes,
            channels=config.channels,
            strides=[2] * (len(config.channels) - 1),
            num_res_units=2,
            norm="instance",
        )

    def forward(self, x: Float[Tensor, "b 1 x y z"]) -> Float[Tensor, "b k x y z"]:
        return haar_inverse(self.unet(haar(x)).float())


def size_multiple(config: SegmenterConfig) -> int:
    """Every axis of a patch must be a multiple of this."""
    return int(2 ** len(config.channels))
