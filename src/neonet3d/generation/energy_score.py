"""The energy score: how a network that draws at random is trained without an adversary.

    S(P, y) = E |X - y| - 1/2 E |X - X'|,    X, X' independent draws of P

is least on average where P is the distribution of y (Gneiting & Raftery 2007, section 4.3). With
two draws of each case its estimate has no bias. One pass of the network is then one draw: there is
no time to integrate over, and no discriminator to balance (engression, Shen & Meinshausen 2024,
arXiv 2307.00835; the weather models of Lang et al. 2024, arXiv 2412.15832, are trained so).

A norm over a whole patch would see little of its texture. The score is proper for every function of
the draw, so it is summed over several that textures are known by, on Haar coefficients; which ones
is our choice:

* each coefficient by itself, the eight of a voxel, those of 3x3x3 voxels: what is plausible here;
* means over 2x2x2 and 4x4x4 voxels: noise must not wander;
* standard deviations of each band in windows of 4 and 8 voxels: as much texture as there is, where
  it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SMALL = 1e-6  # under roots, whose slope is infinite at 0
LEAST_VARIANCE = 1e-4
MEANS = (2, 4)  # voxels of an edge
WINDOWS = {4: 2.0, 8: 4.0}  # voxels of an edge, and weight: there are fewer of the larger

Coefficients = Float[Tensor, "b c x y z"]
Distance = Callable[[Tensor, Tensor], Tensor]


def energy_score(first: Coefficients, second: Coefficients, target: Coefficients) -> Tensor:
    """Mean score of two independent draws for each target, float32.

    Args:
        first, second, target: Haar coefficients, each band divided by its spread.
    """
    first, second, target = first.float(), second.float(), target.float()
    total = _score(_distance, first, second, target)
    spreads = [_spreads(x) for x in (first, second, target)]
    for weight, (a, b, y) in zip(WINDOWS.values(), zip(*spreads, strict=True), strict=True):
        total = total + weight * _score(_mean_absolute, a, b, y)
    return total


def _score(distance: Distance, first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    near = distance(first, target) + distance(second, target)
    return 0.5 * (near - distance(first, second))


def _distance(a: Coefficients, b: Coefficients) -> Tensor:
    """Mean norms of a - b, scaled so that each is about 1 for white noise."""
    square = (a - b).square()
    of_voxel = square.mean(1, keepdim=True)
    total = sum(_mean_root(part) for part in (square, of_voxel, F.avg_pool3d(of_voxel, 3, 1)))
    for edge in MEANS:
        if min(a.shape[2:]) >= edge:
            total = total + 0.5 * edge**1.5 * _mean_root(F.avg_pool3d(a - b, edge).square())
    assert isinstance(total, Tensor)
    return total


def _spreads(x: Coefficients) -> list[Tensor]:
    """Standard deviation of each channel in overlapping windows; a smaller grid is one window."""
    found = []
    for edge in WINDOWS:
        window = [min(edge, n) for n in x.shape[2:]]
        stride = [max(1, n // 2) for n in window]
        mean = F.avg_pool3d(x, window, stride)
        square = F.avg_pool3d(x.square(), window, stride)
        found.append((square - mean.square()).clamp_min(LEAST_VARIANCE).sqrt())
    return found


def _mean_root(square: Tensor) -> Tensor:
    return (square + SMALL).sqrt().mean() - SMALL**0.5


def _mean_absolute(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().mean()


def two_of_each(x: Tensor) -> Tensor:
    """The rows of a batch, and all of them again, for the two draws of each case."""
    return torch.cat([x, x])
