"""Networks that people train on volumes end to end, the baselines of PattenNet; all are MONAI's."""

from __future__ import annotations

import torch.nn.functional as F
from monai.networks.nets import (
    DenseNet121,
    EfficientNetBN,
    SEResNet50,
    ViT,
    resnet18,
    resnet50,
)
from torch import Tensor, nn

from neonet3d.config import BaselineName
from neonet3d.types import Shape

NORM_GROUPS = 8
VIT_PATCH = 8  # voxels of an edge
LEAST = 32  # voxels of an axis, which DenseNet and EfficientNet halve five times

TITLES: dict[BaselineName, str] = {
    "resnet18": "ResNet-18 (3D)",
    "resnet50": "ResNet-50 (3D)",
    "densenet121": "DenseNet-121 (3D)",
    "efficientnet_b0": "EfficientNet-B0 (3D)",
    "seresnet50": "SE-ResNet-50 (3D)",
    "vit": "Vision transformer (3D)",
}


def build_network(name: BaselineName, channels: int, shape: Shape, width: float) -> nn.Module:
    """One logit, ``(b, 1)``, from ``(b, channels, *shape)``; no running statistics.

    Args:
        shape: of the patches, multiples of 8; only the transformer is bound to it.
        width: scales the channels of a ResNet; 1 is the published network. The others know only 1
            (``BaselineConfig`` refuses what else is said).
    """
    whole = {"spatial_dims": 3, "in_channels": channels}
    match name:
        case "resnet18" | "resnet50":
            build = resnet18 if name == "resnet18" else resnet50
            network = build(
                spatial_dims=3,
                n_input_channels=channels,
                num_classes=1,
                widen_factor=width,
                conv1_t_size=3,
                conv1_t_stride=2,  # patches are small: 7x7x7 at full resolution costs 10 times
            )
        case "densenet121":
            network = nn.Sequential(_Widen(), DenseNet121(out_channels=1, **whole))
        case "efficientnet_b0":
            inner = EfficientNetBN("efficientnet-b0", pretrained=False, num_classes=1, **whole)
            network = nn.Sequential(_Widen(), inner)
        case "seresnet50":
            network = SEResNet50(num_classes=1, **whole)
        case "vit":
            network = _Transformer(channels, shape)
    norm_by_groups(network)
    return network


class _Widen(nn.Module):
    """Repeats the border until every axis has ``LEAST`` voxels."""

    def forward(self, x: Tensor) -> Tensor:
        missing = [max(0, LEAST - n) for n in x.shape[2:]]
        ends = [part for n in reversed(missing) for part in (n // 2, n - n // 2)]
        return F.pad(x, ends, mode="replicate")


class _Transformer(nn.Module):
    """A ViT of half the depth of ViT-S: its first token's logit."""

    def __init__(self, channels: int, shape: Shape) -> None:
        super().__init__()
        self.vit = ViT(
            in_channels=channels,
            img_size=shape,
            patch_size=(VIT_PATCH,) * 3,
            hidden_size=384,
            mlp_dim=1536,
            num_layers=6,
            num_heads=6,
            classification=True,
            num_classes=1,
            dropout_rate=0.1,
            post_activation="none",  # the default squashes the logit by tanh
        )

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.vit(x)[0]
        return logit


def norm_by_groups(module: nn.Module) -> None:
    """Group norms for batch norms: no running statistics, any batch and patch size.

    MONAI's argument ``norm`` reaches the stem of its ResNets alone; the blocks keep their own.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            setattr(module, name, nn.GroupNorm(NORM_GROUPS, child.num_features))
        else:
            norm_by_groups(child)
