"""What the flow U-Net, the ControlNet and the detail decoder minimise.

The first two: the squared error of the velocity. Channels weigh as much as they move the image.
Unweighted, a dozen standardised channels count alike, and most of the gradient goes into detail
channels that are nearly noise. The weights are our choice. The last: the energy score.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from neonet3d.generation.autoencoder import DOWNSAMPLING
from neonet3d.generation.condition import Condition
from neonet3d.generation.controlnet import ControlNet, class_fractions, one_hot
from neonet3d.generation.detail import DetailDecoder
from neonet3d.generation.energy_score import energy_score, two_of_each
from neonet3d.generation.flow import draw_times, guided, interpolate
from neonet3d.generation.unet import FlowUNet
from neonet3d.generation.wavelet import haar
from neonet3d.types import ImageBatch, LabelBatch, LabelSchema, LatentBatch

NULL_MASK = 0.1  # share of batches whose mask the flow U-Net is not told


class FlowObjective(nn.Module):
    """E |v(x_t, t, y) - (e - z)|^2; label and mask are hidden at random so that guidance works."""

    latent_gain: Tensor

    def __init__(
        self, unet: FlowUNet, latent_gain: Float[Tensor, " c"], null_label_fraction: float
    ) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("latent_gain", latent_gain, persistent=False)
        self.null_label_fraction = null_label_fraction

    def forward(
        self,
        z: LatentBatch,
        outcome: Int[Tensor, " b"],
        numbers: Float[Tensor, "b n"],
        fractions: Float[Tensor, "b k x y z"] | None = None,
    ) -> Tensor:
        noise, t = torch.randn_like(z), draw_times(len(z), z.device)
        condition = Condition.of(outcome, numbers).with_labels_hidden(self.null_label_fraction)
        if fractions is not None and float(torch.rand(())) >= NULL_MASK:  # of the whole batch
            condition = condition.with_mask(fractions)
        error = (self.unet(interpolate(z, noise, t), t, condition) - (noise - z)).square()
        return (error * self.latent_gain.view(-1, 1, 1, 1)).mean()


class ControlObjective(nn.Module):
    """The same loss with the label map given; small structures weigh more, the U-Net is frozen.

    Guidance of the mask is learned, not computed at each step of a sampler: the target is not e - z
    but ``controlnet.guidance`` times as far from what the U-Net says without a mask. Its mean given
    x_t is the guided velocity, and a draw costs no more than without guidance. Model guidance (Tang
    et al. 2025, arXiv 2502.12154) with a frozen network as the reference; that is our choice.
    """

    latent_gain: Tensor
    extra_weight: Tensor

    def __init__(
        self,
        unet: FlowUNet,
        controlnet: ControlNet,
        latent_gain: Float[Tensor, " c"],
        schema: LabelSchema,
        foreground_weight: float,
        null_label_fraction: float,
    ) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(False)
        self.controlnet = controlnet
        self.null_label_fraction = null_label_fraction
        self.register_buffer("latent_gain", latent_gain, persistent=False)
        extra = [0.0 if name == "liver" else foreground_weight - 1 for name in schema.names[1:]]
        self.register_buffer("extra_weight", torch.tensor(extra), persistent=False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.unet.eval()
        return self

    def forward(
        self,
        z: LatentBatch,
        outcome: Int[Tensor, " b"],
        numbers: Float[Tensor, "b n"],
        label_map: LabelBatch,
    ) -> Tensor:
        noise, t = torch.randn_like(z), draw_times(len(z), z.device)
        condition = Condition.of(outcome, numbers).with_labels_hidden(self.null_label_fraction)
        told = condition.with_mask(class_fractions(label_map, self.controlnet.n_classes))
        error = control_error(self.unet, self.controlnet, z, noise, t, told, label_map)
        error = (error * self.latent_gain.view(-1, 1, 1, 1)).mean(1)
        weight = self.voxel_weight(label_map)
        return (weight * error).sum() / weight.sum()

    def voxel_weight(self, label_map: LabelBatch) -> Float[Tensor, "b x y z"]:
        """1, plus the extra weight of a class other than liver where it touches the voxel."""
        touched = F.max_pool3d(one_hot(label_map, self.controlnet.n_classes), DOWNSAMPLING)
        return 1 + (touched * self.extra_weight.view(-1, 1, 1, 1)).amax(1)


def control_error(
    unet: FlowUNet,
    controlnet: ControlNet,
    z: LatentBatch,
    noise: LatentBatch,
    t: Float[Tensor, " b"],
    condition: Condition,
    label_map: LabelBatch,
) -> LatentBatch:
    """Squared error of a ControlNet's velocity against its guided target, over guidance squared.

    Args:
        condition: with the fractions of ``label_map``.
    """
    x, target = interpolate(z, noise, t), noise - z
    velocity = unet(x, t, condition, controlnet(x, t, condition, controlnet.hint_of(label_map)))
    if controlnet.guidance != 1:
        with torch.no_grad():
            target = guided(target, unet(x, t, condition.without_mask()), controlnet.guidance)
    return ((velocity - target) / controlnet.guidance).square()


class DetailObjective(nn.Module):
    """Energy score of two draws of the detail, on the coefficients of the whole image."""

    def __init__(self, detail: DetailDecoder) -> None:
        super().__init__()
        self.detail = detail

    def forward(
        self,
        scan: ImageBatch,
        decoded: ImageBatch,
        label_map: LabelBatch,
        profile: Float[Tensor, "b 16"],
    ) -> Tensor:
        known = haar(decoded) / self.detail.band_spread.view(-1, 1, 1, 1)
        decoded, label_map, profile = (two_of_each(x) for x in (decoded, label_map, profile))
        noise = torch.randn(len(decoded), *known.shape[1:], device=known.device)
        drawn = self.detail(self.detail.inputs(decoded, label_map, noise), profile)
        first, second = drawn.chunk(2)
        return energy_score(
            known + first, known + second, haar(scan) / self.detail.band_spread.view(-1, 1, 1, 1)
        )
