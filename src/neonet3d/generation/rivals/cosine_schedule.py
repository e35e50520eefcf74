"""The cosine noise schedule (Nichol & Dhariwal 2021, arXiv 2102.09672), and steps back along it.

With times t = 0 ... T-1, noise e and kept(t) the share of the image's variance that is left,

    x_t = sqrt(kept) x_0 + sqrt(1 - kept) e,    kept(t) = f(t + 1) / f(0),
    f(u) = cos^2(pi/2 (u / T + 0.008) / 1.008),    1 - kept(t) / kept(t - 1) at most 0.999.

A sampler may visit some of the times only; its steps then take the variance that lies between two
of them (ibid., section 4).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neonet3d.types import ImageBatch

OFFSET = 0.008
LARGEST_BETA = 0.999


def kept_variance(n_times: int) -> Float[Tensor, " t"]:
    """kept(0) ... kept(T-1), falling; float64."""
    u = torch.arange(n_times + 1, dtype=torch.float64) / n_times
    f = torch.cos(math.pi / 2 * (u + OFFSET) / (1 + OFFSET)).square()
    beta = (1 - f[1:] / f[:-1]).clamp(max=LARGEST_BETA)
    return (1 - beta).cumprod(0)


def visited_times(n_times: int, n_steps: int) -> Int[Tensor, " s"]:
    """Evenly spaced times from T-1 down to 0, both visited; all of them for T steps."""
    return torch.linspace(n_times - 1, 0, n_steps, dtype=torch.float64).round().long()


def noised(
    x: ImageBatch, noise: ImageBatch, kept: Float[Tensor, " b"]
) -> Float[Tensor, "b 1 x y z"]:
    """x_t of images and noise."""
    kept = kept.view(-1, 1, 1, 1, 1)
    return kept.sqrt() * x + (1 - kept).sqrt() * noise


def step_back(
    x: ImageBatch, predicted: ImageBatch, kept: float, kept_after: float, fresh: ImageBatch
) -> ImageBatch:
    """A draw of q(x_s | x_t, x_0), x_0 as a predicted noise implies it (Ho et al. 2020, eq. 7).

    Args:
        predicted: the noise in ``x``.
        kept: at t.
        kept_after: at the earlier time s; 1 for the image itself, which then is all there is.
        fresh: standard normal noise.

    The implied image is clipped to [-1, 1], as Med-DDPM does.
    """
    image = ((x - math.sqrt(1 - kept) * predicted) / math.sqrt(kept)).clamp(-1, 1)
    beta = 1 - kept / kept_after
    mean = (math.sqrt(kept_after) * beta * image + math.sqrt(1 - beta) * (1 - kept_after) * x) / (
        1 - kept
    )
    return mean + math.sqrt(beta * (1 - kept_after) / (1 - kept)) * fresh
