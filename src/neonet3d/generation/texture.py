"""Texture that the autoencoder smooths away: the acquisition noise, measured and put back.

A classifier tells reconstructions from scans perfectly, because the decoder returns the mean and
drops the noise. The remedy here is the cheapest one that went far: the mean power spectrum of the
training residuals, and their standard deviation per case. White noise shaped
by that spectrum is added after decoding; magnitudes cannot fall below the lower bound -1, as in a
magnitude image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neonet3d.generation.wavelet import haar
from neonet3d.types import Shape

SMOOTH = 0.25  # share of a patch in which the noise is measured


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
    def fit(
        self, images: Float[Tensor, "n x y z"], reconstructions: Float[Tensor, "n x y z"]
    ) -> None:
        """Measure spectrum and levels from what the reconstructions of the training fold lack.

        Only where the reconstruction is smooth (its quietest ``SMOOTH`` share of 2x2x2 blocks), and
        robustly (median absolute deviation; clipped at three deviations): elsewhere the residual is
        anatomy that the decoder missed, and counted in full it makes the noise too strong.
        """
        residuals = images - reconstructions
        levels, power = [], torch.zeros_like(self.amplitude)
        for residual, smooth in zip(residuals, smooth_voxels(reconstructions), strict=True):
            quiet = residual[smooth]
            level = (1.4826 * (quiet - quiet.median()).abs().median()).clamp_min(1e-8)
            noise = (residual - quiet.median()).clamp(-3 * level, 3 * level) / level * smooth
            power += torch.fft.rfftn(noise, norm="ortho").abs().square()
            levels.append(level)
        power[0, 0, 0] = 0  # the mean is the decoder's business
        self.amplitude.copy_((power / _mean_power(power, residuals.shape[-1])).sqrt())
        self.levels.copy_(torch.stack(levels).sort().values)

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


def smooth_voxels(images: Float[Tensor, "n x y z"]) -> Bool[Tensor, "n x y z"]:
    """The ``SMOOTH`` share of each image where neighbouring 2x2x2 blocks show the least detail."""
    detail = haar(images[:, None])[:, 1:].abs().sum(1, keepdim=True)
    detail = F.avg_pool3d(detail, 3, stride=1, padding=1, count_include_pad=False)
    limit = detail.flatten(1).quantile(SMOOTH, dim=1).view(-1, 1, 1, 1, 1)
    return F.interpolate((detail <= limit).float(), scale_factor=2)[:, 0] > 0


def _mean_power(power: Float[Tensor, "x y h"], z: int) -> Tensor:
    """Mean over the whole spectrum of a real field of which half is stored."""
    twice = torch.full_like(power[0, 0], 2)
    twice[0] = 1
    if z % 2 == 0:
        twice[-1] = 1
    return (power * twice).sum() / (power.shape[0] * power.shape[1] * z)
