"""Rectified flow: the path, its training target, and samplers that know no network.

    x_t = (1 - t) z + t e,    dx_t/dt = e - z,    t from 0 (data) to 1 (noise)

Liu et al. 2022 (arXiv 2209.03003); logit-normal t from Esser et al. 2024 (arXiv 2403.03206, 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from neonet3d.generation.gaussian import GaussianVelocity

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x, t) -> dx/dt; x is (b, c, x, y, z), t is (b,)."""


def interpolate(
    z: Float[Tensor, b * s], noise: Float[Tensor, b * s], t: Float[Tensor, " b"]
) -> Float[Tensor, b * s]:
    """x_t = (1 - t) z + t e."""
    t = t.view(-1, *[1] * (z.dim() - 1))
    return (1 - t) * z + t * noise


def draw_times(n: int, device: torch.device) -> Float[Tensor, " n"]:
    """Logit-normal times: sigmoid of a standard normal, densest where the flow is hardest."""
    return torch.sigmoid(torch.randn(n, device=device))


def time_steps(
    steps: int, device: torch.device, start: float = 1, end: float = 0
) -> Float[Tensor, " steps+1"]:
    """start = t_0, ..., t_steps = end, equally spaced; upwards where ``end`` is the larger."""
    return torch.linspace(start, end, steps + 1, device=device)


def euler(
    velocity: Velocity, x: Float[Tensor, b * s], steps: int, start: float = 1
) -> Float[Tensor, b * s]:
    """Integrate from ``x`` at t = ``start`` to data (t = 0): ``steps`` evaluations, first order."""
    times = time_steps(steps, x.device, start)
    for now, after in pairwise(times):
        x = x + (after - now) * velocity(x, now.expand(len(x)))
    return x


def exponential(
    excess: Velocity,
    gaussian: GaussianVelocity,
    x: Float[Tensor, "b c x y z"],
    steps: int,
    start: float = 1,
    end: float = 0,
) -> Float[Tensor, "b c x y z"]:
    """The Gaussian part of the velocity in closed form; what exceeds it, second order.

    From t = ``start`` to t = ``end``: to data by default, from data to noise with 0 and 1.

    The excess is extrapolated from the last two steps (Adams-Bashforth), so that each step is one
    evaluation. With few steps this is far more exact than ``euler``, which it approaches with many.

    Args:
        excess: the velocity minus that of ``gaussian``.
    """
    times = time_steps(steps, x.device, start, end)
    before = None
    for now, after in pairwise(times):
        found = excess(x, now.expand(len(x)))
        slope = found if before is None else 1.5 * found - 0.5 * before
        x, before = gaussian.step(x, slope, now, after), found
    return x


def heun(
    velocity: Velocity, x: Float[Tensor, b * s], steps: int, start: float = 1
) -> Float[Tensor, b * s]:
    """Second order: two evaluations a step, the mean of both slopes."""
    times = time_steps(steps, x.device, start)
    for now, after in pairwise(times):
        slope = velocity(x, now.expand(len(x)))
        ahead = x + (after - now) * slope
        x = x + (after - now) * 0.5 * (slope + velocity(ahead, after.expand(len(x))))
    return x


def guided(
    conditional: Float[Tensor, b * s], unconditional: Float[Tensor, b * s], scale: float
) -> Float[Tensor, b * s]:
    """Classifier-free guidance (Ho & Salimans 2022): u + scale (c - u); scale 1 is c."""
    return unconditional + scale * (conditional - unconditional)
