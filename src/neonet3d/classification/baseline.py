"""A baseline: a 3D network on the image with its masks as further channels, end to end."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from neonet3d.classification.networks import build_network
from neonet3d.config import BaselineName
from neonet3d.generation.controlnet import one_hot
from neonet3d.types import Shape


class VolumeClassifier(nn.Module):
    """Logit of the outcome from (b, 1, x, y, z) in [-1, 1] and the label map.

    Args:
        name, shape, width: of ``networks.build_network``.
    """

    prior_logit: Tensor

    def __init__(self, name: BaselineName, n_classes: int, shape: Shape, width: float) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.network = build_network(name, n_classes, shape, width)
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
