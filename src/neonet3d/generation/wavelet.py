"""The 3D Haar transform: an orthogonal, free way to halve every axis (Haar, 1910; Mallat, 1989).

A volume of one channel becomes eight channels of half the size: one local mean and seven
differences. No information is lost and white noise stays white with the same variance, so a loss
in the wavelet domain equals a loss in the image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_SQRT_HALF = 0.5**0.5


def haar(x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b 8*c x//2 y//2 z//2"]:
    """Forward transform; every spatial size must be even. ``haar_inverse(haar(x)) == x``."""
    for axis in (2, 3, 4):
        even, odd = _split(x, axis)
        x = torch.cat([(even + odd) * _SQRT_HALF, (even - odd) * _SQRT_HALF], dim=1)
    return x


def haar_inverse(y: Float[Tensor, "b 8*c x y z"]) -> Float[Tensor, "b c 2*x 2*y 2*z"]:
    """Inverse transform; also the transpose, since the transform is orthogonal."""
    for axis in (4, 3, 2):
        low, high = y.chunk(2, dim=1)
        pair = torch.stack([(low + high) * _SQRT_HALF, (low - high) * _SQRT_HALF], dim=axis + 1)
        y = pair.flatten(axis, axis + 1)
    return y


def _split(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    if x.shape[axis] % 2:
        raise ValueError(
            f"axis {axis} has {x.shape[axis]} voxels; the Haar transform needs even sizes"
        )
    pairs = x.unflatten(axis, (-1, 2))
    return pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)
