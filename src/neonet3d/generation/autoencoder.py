"""The autoencoder: Haar stem, one strided stage, KL; 4x smaller along every axis.

::

    image -haar-> 8 @ 1/2 -conv, block-> C @ 1/2 -stride 2, blocks-> 2C @ 1/4 --+--> mean, log var
                     '----haar---> 64 @ 1/4 ---------linear--------------------'
    latent -> 2C @ 1/4 -blocks, x2-> C @ 1/2 -block, conv-> 8 @ 1/2 --+--haar_inverse--> image
       '------linear---> 64 @ 1/4 -haar_inverse-> 8 @ 1/2 ------------'

The linear paths start as the principal components of the training fold's wavelet coefficients, in
closed form, and the deep paths start at zero: training begins at the best linear code instead of at
noise, which a few hundred steps from a random start do not reach.

The latent is standardised per channel over the training fold; mean and deviation are buffers of
the model and travel with its weights. Architecture and sizes are our choice; the
papers state neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.config import AutoencoderConfig
from neonet3d.generation.blocks import ChannelNorm, ResidualBlock, zero_initialised
from neonet3d.generation.wavelet import haar, haar_inverse
from neonet3d.types import ImageBatch, LatentBatch

DOWNSAMPLING = 4
INITIAL_LOG_VARIANCE = -6.0  # of the posterior, against a prior of unit variance


@dataclass(frozen=True)
class EncoderMaps:
    """What the encoder knows at every level; all deterministic (the latent is its mean).

    Attributes:
        haar: (b, 8, x/2, y/2, z/2) wavelet coefficients of the image.
        fine: (b, C, x/2, y/2, z/2).
        coarse: (b, 2C, x/4, y/4, z/4).
        latent: (b, c, x/4, y/4, z/4), standardised.
    """

    haar: Tensor
    fine: Tensor
    coarse: Tensor
    latent: Tensor


class Encoder(nn.Module):
    """The half that a classifier reads. Images are in [-1, 1], sizes multiples of 4.

    Buffers, fitted on the training fold after training: ``latent_mean`` and ``latent_std`` (c,)
    standardise the latent; ``latent_gain`` (c,) is how far one unit of each standardised channel
    moves the image, with mean 1.
    """

    latent_mean: Tensor
    latent_std: Tensor
    latent_gain: Tensor

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c = config.channels
        self.stem = nn.Conv3d(8, c, 3, padding=1)
        self.fine = ResidualBlock(c)
        self.down = nn.Conv3d(c, 2 * c, 2, stride=2)
        self.coarse = nn.Sequential(ResidualBlock(2 * c), ResidualBlock(2 * c))
        self.to_latent = nn.Sequential(
            ChannelNorm(2 * c), zero_initialised(nn.Conv3d(2 * c, 2 * config.latent_channels, 1))
        )
        self.linear = nn.Conv3d(64, config.latent_channels, 1)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_std", torch.ones(config.latent_channels))
        self.register_buffer("latent_gain", torch.ones(config.latent_channels))

    def path(self) -> tuple[nn.Module, ...]:
        """What wavelet coefficients go through on the way that sees the farthest, in order."""
        return (self.stem, self.fine, self.down, self.coarse, self.to_latent)

    def maps(self, image: ImageBatch) -> EncoderMaps:
        """Every level of the encoder, for a classifier on frozen features."""
        coefficients = haar(image)
        fine = self.fine(self.stem(coefficients))
        coarse = self.coarse(self.down(fine))
        mean, _ = self._to_posterior(coefficients, coarse)
        return EncoderMaps(coefficients, fine, coarse, self._standardise(mean))

    def posterior(self, image: ImageBatch) -> tuple[LatentBatch, LatentBatch]:
        """Mean and log variance of q(z | image), float32, not standardised."""
        coefficients = haar(image)
        return self._to_posterior(
            coefficients, self.coarse(self.down(self.fine(self.stem(coefficients))))
        )

    def _to_posterior(self, coefficients: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        correction, log_variance = self.to_latent(coarse).float().chunk(2, dim=1)
        mean = self.linear(haar(coefficients)).float() + correction
        return mean, (log_variance + INITIAL_LOG_VARIANCE).clamp(-20, 10)

    def forward(self, image: ImageBatch) -> LatentBatch:
        """Mean of the posterior, standardised per channel.

        Never a sample of it, whose noise the flow would have to learn.
        """
        return self._standardise(self.posterior(image)[0])

    def _standardise(self, mean: LatentBatch) -> LatentBatch:
        return (mean - _per_channel(self.latent_mean)) / _per_channel(self.latent_std)


class Autoencoder(nn.Module):
    """Variational autoencoder; ``decode(encoder(image))`` is the image without its noise.

    What it lacks then, ``detail.py`` draws.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        c = config.channels
        self.encoder = Encoder(config)
        self.from_latent = nn.Conv3d(config.latent_channels, 2 * c, 3, padding=1)
        self.coarse = ResidualBlock(2 * c)
        self.up = nn.ConvTranspose3d(2 * c, c, 2, stride=2)
        self.fine = nn.Sequential(ResidualBlock(c), ChannelNorm(c))
        self.head = zero_initialised(nn.Conv3d(c, 8, 3, padding=1))
        self.linear = nn.Conv3d(config.latent_channels, 64, 1)

    def path(self) -> tuple[nn.Module, ...]:
        """What a latent goes through on the way that sees the farthest, in order."""
        return (self.from_latent, self.coarse, self.up, self.fine, self.head)

    def decode(self, latent: LatentBatch) -> ImageBatch:
        """Image of a standardised latent, in [-1, 1] up to small overshoot."""
        encoder = self.encoder
        z = latent * _per_channel(encoder.latent_std) + _per_channel(encoder.latent_mean)
        return haar_inverse(self.decode_coefficients(z))

    def decode_coefficients(self, z: LatentBatch) -> Float[Tensor, "b 8 x y z"]:
        """Haar coefficients of a latent that is not standardised."""
        h = self.fine(self.up(self.coarse(self.from_latent(z))))
        return self.head(F.silu(h)).float() + haar_inverse(self.linear(z).float())

    @torch.no_grad()
    def fit_latent_statistics(self, means: Float[Tensor, "n c x y z"]) -> None:
        """Set the encoder's statistics from the posterior means of the whole training fold."""
        encoder = self.encoder
        encoder.latent_mean.copy_(means.mean((0, 2, 3, 4)))
        encoder.latent_std.copy_(means.std((0, 2, 3, 4)).clamp_min(1e-6))
        latent = (means[:8] - _per_channel(encoder.latent_mean)) / _per_channel(encoder.latent_std)
        plain = self.decode(latent)
        for channel in range(len(encoder.latent_gain)):
            moved = latent.clone()
            moved[:, channel] += 1
            encoder.latent_gain[channel] = (self.decode(moved) - plain).square().mean().sqrt()
        encoder.latent_gain /= encoder.latent_gain.mean()

    @torch.no_grad()
    def start_from_principal_components(self, images: Float[Tensor, "n 1 x y z"]) -> None:
        """Set the linear paths to the principal components of 4x4x4 blocks, whitened.

        Args:
            images: the training fold.
        """
        blocks = haar(haar(images)).movedim(1, -1).reshape(-1, 64).double()
        centre = blocks.mean(0)
        variance, directions = torch.linalg.eigh(torch.cov((blocks - centre).T))
        n = self.encoder.linear.out_channels
        scale = variance[-n:].clamp_min(1e-8).sqrt()
        to_latent = (directions[:, -n:] / scale).T  # (n, 64)
        from_latent = directions[:, -n:] * scale  # (64, n)
        self.encoder.linear.weight.copy_(to_latent[..., None, None, None])
        self.encoder.linear.bias.copy_(-to_latent @ centre)  # type: ignore[union-attr]
        self.linear.weight.copy_(from_latent[..., None, None, None])
        self.linear.bias.copy_(centre)  # type: ignore[union-attr]


class AutoencoderObjective(nn.Module):
    """L1 on wavelet coefficients and on the image, plus KL averaged over the latent.

    The KL is a mean in float32: summed, it overflows under mixed precision. L1 on
    Haar coefficients keeps edges, since seven of the eight bands are differences.
    """

    def __init__(self, autoencoder: Autoencoder, kl_weight: float) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.kl_weight = kl_weight

    def forward(self, image: ImageBatch) -> Tensor:
        mean, log_variance = self.autoencoder.encoder.posterior(image)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        coefficients = self.autoencoder.decode_coefficients(z)
        in_wavelets = F.l1_loss(coefficients, haar(image))
        in_image = F.l1_loss(haar_inverse(coefficients), image)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return in_wavelets + in_image + self.kl_weight * kl


def _per_channel(statistic: Float[Tensor, " c"]) -> Float[Tensor, "c 1 1 1"]:
    return statistic.view(-1, 1, 1, 1)
