"""Blocks that the two GANs share: up beside the mask, down by strides, the gradient penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.segmentation.convolution import ShortGridConv3d
from neonet3d.types import OneHotBatch

LEAK = 0.2  # of the discriminators' leaky ReLU, as both papers


class MaskedBlock(nn.Module):
    """3x3x3 convolution of features beside the classes' fractions, norm, ReLU."""

    def __init__(self, channels_in: int, n_masks: int, channels: int, norm: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in + n_masks, channels, 3, padding=1)
        self.norm = norm

    def forward(
        self, h: Float[Tensor, "b c x y z"], masks: OneHotBatch
    ) -> Float[Tensor, "b d x y z"]:
        return F.relu(self.norm(self.conv(torch.cat([h, masks], dim=1))))


def group_norm(channels: int) -> nn.Module:
    """Eight groups, as HA-GAN."""
    return nn.GroupNorm(8, channels)


def upsampled(h: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c 2*x 2*y 2*z"]:
    """Nearest voxel, as both papers."""
    return F.interpolate(h, scale_factor=2)


def halvings(
    channels: Sequence[int],
    activation: Callable[[], nn.Module],
    norm: Callable[[int], nn.Module] | None = None,
    wrap: Callable[[nn.Module], nn.Module] = lambda layer: layer,
) -> nn.Sequential:
    """4x4x4 convolutions that halve each axis: from channels[0] to channels[1], and so on.

    Args:
        norm: after every convolution but the first.
        wrap: such as a spectral norm of each convolution.
    """
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(channels)):
        layers.append(wrap(ShortGridConv3d(before, after, 4, stride=2, padding=1)))
        if norm is not None and number:
            layers.append(norm(after))
        layers.append(activation())
    return nn.Sequential(*layers)


def leaky_relu() -> nn.Module:
    return nn.LeakyReLU(LEAK)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Float[Tensor, "b ..."], fake: Float[Tensor, "b ..."]
) -> Float[Tensor, ""]:
    """Mean of (|gradient| - 1)^2 of a critic between real and fake (Gulrajani et al. 2017, eq. 3).

    In float32: second derivatives under autocast were off by 1 to 5 %, and gained little time. Call
    ``backward`` outside autocast too, which reaches into second derivatives.

    Args:
        critic: gives (b, 1); each case on its own.
    """
    share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
    between = (share * real + (1 - share) * fake).detach().float().requires_grad_(True)
    with torch.autocast(real.device.type, enabled=False):
        verdict = critic(between).sum()
        (gradient,) = torch.autograd.grad(verdict, between, create_graph=True)
        # The root's slope is infinite at 0.
        norm = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()
        return (norm - 1).square().mean()


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Networks that gradients pass through and do not change, for a while."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step down a loss."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
