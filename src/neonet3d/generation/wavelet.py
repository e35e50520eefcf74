"""The 3D Haar transform: an orthogonal, free way to halve every axis (Haar, 1910; Mallat, 1989).

A volume of one channel becomes eight channels of half the size: one local mean and seven
differences. No information is lost and white noise stays white with the same variance, so a loss
in the wavelet domain equals a loss in the image.
"""

from __future__ import annotations

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor


def haar(x: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b 8*c x//2 y//2 z//2"]:
    """Forward transform; every spatial size must be even. ``haar_inverse(haar(x)) == x``."""
    b, c, *size = x.shape
    for axis, n in enumerate(size, start=2):
        if n % 2:
            raise ValueError(f"axis {axis} has {n} voxels; the Haar transform needs even sizes")
    half = [n // 2 for n in size]
    pairs = x.reshape(b, c, half[0], 2, half[1], 2, half[2], 2)
    blocks = pairs.permute(0, 7, 5, 3, 1, 2, 4, 6).reshape(b, 8, -1)
    return _transform(blocks).view(b, 8 * c, *half)


def haar_inverse(y: Float[Tensor, "b 8*c x y z"]) -> Float[Tensor, "b c 2*x 2*y 2*z"]:
    """Inverse transform; also the transpose, since the transform is orthogonal."""
    b, bands, x, y_, z = y.shape
    blocks = _transform(y.reshape(b, 8, -1)).view(b, 2, 2, 2, bands // 8, x, y_, z)
    return blocks.permute(0, 4, 5, 3, 6, 2, 7, 1).reshape(b, bands // 8, 2 * x, 2 * y_, 2 * z)


def _transform(blocks: Float[Tensor, "b 8 n"]) -> Float[Tensor, "b 8 n"]:
    """Of the voxels of each 2x2x2 block (along z, y, x) to its bands, and back: its own inverse.

    One product, which is several times as fast as a pass along each axis; the scale comes after it,
    so that a constant has no detail, but for what rounding leaves.
    """
    with torch.autocast(blocks.device.type, enabled=False):
        return (_signs(blocks.dtype, blocks.device) @ blocks) * 8**-0.5


@cache
def _signs(dtype: torch.dtype, device: torch.device) -> Float[Tensor, "8 8"]:
    with torch.inference_mode(mode=False):  # or training could not use what sampling made
        pairs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=dtype, device=device)
        return torch.kron(torch.kron(pairs, pairs), pairs)
