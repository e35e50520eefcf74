"""Texture that the autoencoder smooths away: the acquisition noise, measured and put back.

A classifier tells reconstructions from scans perfectly, because the decoder returns the mean and
drops the noise (generator-lessons 3). The remedy here is the cheapest one that went far: the mean
power spectrum of the training residuals, and their standard deviation per case. White noise shaped
by that spectrum is added after decoding; magnitudes cannot fall below the lower bound -1, as in a
magnitude image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.types import Shape


class ResidualTexture(nn.Module):
    """Coloured noise with the spectrum and the levels of the training residuals.

    Buffers: ``amplitude`` (x, y, z//2+1), filter of unit-variance output; ``levels`` (n,), sorted
    standard deviations of the residuals, one per training case.
    """

    amplitude: Tensor
    levels: Tensor

    def __init__(self, shape: Shape, n_levels: int) -> None:
        super().__init__()
        self.register_buffer("amplitude", torch.ones(*shape[:2], shape[2] // 2 + 1))
        self.register_buffer("levels", torch.zeros(n_levels))

    @torch.no_grad()
    def fit(self, residuals: Float[Tensor, "n x y z"]) -> None:
        """Measure spectrum and levels from ``image - decode(encode(image))`` of the training fold.

        Both are robust (median absolute deviation; residuals clipped at three deviations): at
        organ borders the residual is an error of the decoder and not noise, and counted in full it
        makes the noise in the liver too strong.
        """
        flat = residuals.flatten(1)
        middle = flat.median(1, keepdim=True).values
        levels = (1.4826 * (flat - middle).abs().median(1).values).clamp_min(1e-8)
        level = levels.view(-1, 1, 1, 1)
        noise = (residuals - middle.view(-1, 1, 1, 1)).clamp(-3 * level, 3 * level)
        noise = noise / noise.std((1, 2, 3), keepdim=True)
        power = torch.fft.rfftn(noise, dim=(1, 2, 3), norm="ortho").abs().square().mean(0)
        power[0, 0, 0] = 0  # the mean is the decoder's business
        self.amplitude.copy_(power.sqrt())
        self.levels.copy_(levels.sort().values)

    def add(
        self, images: Float[Tensor, "b x y z"], generator: torch.Generator
    ) -> Float[Tensor, "b x y z"]:
        """Add noise of a level drawn from the training cases to each image; clip to [-1, 1]."""
        which = torch.randint(len(self.levels), (len(images),), generator=generator)
        white = torch.randn(images.shape, generator=generator).to(images.device)
        spectrum = torch.fft.rfftn(white, dim=(1, 2, 3), norm="ortho") * self.amplitude
        shape = images.shape[1:]
        noise = torch.fft.irfftn(spectrum, s=shape, dim=(1, 2, 3), norm="ortho")
        level = self.levels[which.to(self.levels.device)].view(-1, 1, 1, 1)
        return (images + level * noise).clamp(-1, 1)
