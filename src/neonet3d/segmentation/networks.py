"""The six segmenters: MONAI's networks, sized by a plan, behind a Haar stem or without one.

The wavelet stem halves every axis for free, so that a network works at half resolution and sees
twice as far for a fraction of the effort; its logits come back to full resolution through the
inverse transform, which loses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from monai.networks.nets import AttentionUnet, DynUNet, SegResNet, UNet, VNet
from torch import Tensor, nn

from neonet3d.config import SegmenterPlan
from neonet3d.generation.wavelet import haar, haar_inverse
from neonet3d.segmentation.convolution import guard_short_grids, norm_by_instance
from neonet3d.types import Shape

HAAR_BANDS = 8
SEGRESNET_BLOCKS = (1, 2, 2, 4)  # of its encoder, as published
VNET_LEVELS, VNET_WIDTH, VNET_KERNEL = 5, 16, 5  # as published


class SegmentationNetwork(nn.Module):
    """Logits (b, k, x, y, z) of an image (b, 1, x, y, z) in [-1, 1]; see ``size_multiple``.

    While it trains, a network with deep supervision gives (b, heads, k, x, y, z), finest first.
    """

    def __init__(self, plan: SegmenterPlan, n_classes: int) -> None:
        super().__init__()
        self.bands = HAAR_BANDS if plan.stem else 1
        self.network = _build(plan, self.bands, self.bands * n_classes)
        norm_by_instance(self.network)
        guard_short_grids(self.network)

    def forward(self, x: Float[Tensor, "b 1 x y z"]) -> Tensor:
        if self.bands == 1:
            logits: Tensor = self.network(x)
            return logits.float()
        coefficients = self.network(haar(x)).float()
        if coefficients.ndim == 5:
            return haar_inverse(coefficients)
        heads = haar_inverse(coefficients.flatten(0, 1))
        return heads.unflatten(0, coefficients.shape[:2])


def size_multiple(plan: SegmenterPlan) -> Shape:
    """Every axis of a patch must be a multiple of this."""
    stem = 2 if plan.stem else 1
    x, y, z = (stem * math.prod(stride[axis] for stride in plan.strides) for axis in range(3))
    return (x, y, z)


def _build(plan: SegmenterPlan, n_in: int, n_out: int) -> nn.Module:
    channels, strides = list(plan.channels), list(plan.strides)
    match plan.network:
        case "unet" | "plain_unet":
            # MONAI's first stride acts before the first level, and its bottom has none.
            return UNet(
                spatial_dims=3,
                in_channels=n_in,
                out_channels=n_out,
                channels=[*channels, channels[-1]],
                strides=_any([1, *strides]),
                num_res_units=2 if plan.network == "unet" else 0,
                norm="instance",
            )
        case "attention_unet":
            return AttentionUnet(
                spatial_dims=3,
                in_channels=n_in,
                out_channels=n_out,
                channels=channels,
                strides=_any(strides),
            )
        case "segresnet":
            return SegResNet(
                spatial_dims=3,
                in_channels=n_in,
                out_channels=n_out,
                init_filters=channels[0],
                norm=("INSTANCE", {"affine": True}),
                blocks_down=SEGRESNET_BLOCKS[: len(channels)],
                blocks_up=[1] * (len(channels) - 1),
            )
        case "dynunet":
            return DynUNet(
                spatial_dims=3,
                in_channels=n_in,
                out_channels=n_out,
                kernel_size=[3] * len(channels),
                strides=[1, *strides],
                upsample_kernel_size=strides,
                filters=channels,
                norm_name="instance",
                deep_supervision=True,
                deep_supr_num=min(2, len(channels) - 2),
            )
        case "vnet":
            return _without_dropout(VNet(spatial_dims=3, in_channels=n_in, out_channels=n_out))


def _without_dropout(network: nn.Module) -> nn.Module:
    """V-Net was published without; MONAI's drops half of all features, whatever one asks for."""
    for module in network.modules():
        if isinstance(module, nn.Dropout3d):
            module.p = 0.0
    return network


def _any(strides: Sequence[object]) -> list[int]:
    """MONAI takes a stride per axis where its annotations name one number."""
    return strides  # type: ignore[return-value]
