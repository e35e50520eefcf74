"""The segmenter's network: MONAI's residual 3D U-Net."""

from __future__ import annotations

from monai.networks.nets import UNet
from torch import nn

from neonet3d.config import SegmenterConfig


def build_segmenter(config: SegmenterConfig, n_classes: int) -> nn.Module:
    """(b, 1, x, y, z) in [-1, 1] -> (b, k, x, y, z) logits; sizes multiples of ``size_multiple``."""
    return UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=n_classes,
        channels=config.channels,
        strides=[2] * (len(config.channels) - 1),
        num_res_units=2,
        norm="instance",
    )


def size_multiple(config: SegmenterConfig) -> int:
    """Every axis of a patch must be a multiple of this."""
    return int(2 ** (len(config.channels) - 1))
