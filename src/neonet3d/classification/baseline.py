"""The baseline: a 3D ResNet-18 (MONAI) on the image with its masks as further channels."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from monai.networks.nets import resnet18
from torch import Tensor, nn

from neonet3d.generation.controlnet import one_hot

NORM_GROUPS = 8


class ResNetBaseline(nn.Module):
    """Logit of the outcome from (b, 1, x, y, z) in [-1, 1] and the label map, end to end.

    ``width`` scales the channels; 1 is the published network.
    """

    prior_logit: Tensor

    def __init__(self, n_classes: int, width: float) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.network = resnet18(
            spatial_dims=3,
            n_input_channels=n_classes,
            num_classes=1,
            widen_factor=width,
            conv1_t_size=3,
            conv1_t_stride=2,  # patches are small: MONAI's 7x7x7 at full resolution costs 10 times
        )
        _norm_by_groups(self.network)
        self.register_buffer("prior_logit", torch.zeros(()))

    def forward(
        self, image: Float[Tensor, "b 1 x y z"], label_map: UInt8[Tensor, "b x y z"]
    ) -> Float[Tensor, " b"]:
        channels = [image]
        if self.n_classes > 1:
            channels.append(one_hot(label_map, self.n_classes))
        # In float32: oneDNN's bf16 weight gradients are uninitialised memory on grids as small as
        # those of the last stage (see engine/device.py).
        with torch.autocast(image.device.type, enabled=False):
            logit: Tensor = self.network(torch.cat(channels, dim=1).float())
        return logit[:, 0]

    def probability(self, logit: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Training draws classes 1:1; the log odds of the training prevalence are added back."""
        return torch.sigmoid(logit + self.prior_logit)


def _norm_by_groups(module: nn.Module) -> None:
    """Group norms for batch norms: no running statistics, any batch and patch size.

    MONAI's argument ``norm`` reaches the stem alone; the blocks keep their batch norms.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            setattr(module, name, nn.GroupNorm(NORM_GROUPS, child.num_features))
        else:
            _norm_by_groups(child)
