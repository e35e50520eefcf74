"""A label map as a small latent grid, four times coarser along each axis, and back.

Categorical variational autoencoder: one-hot in, class logits out. A flow on its latents draws whole
label maps (``mask_generator.py``), as MAISI and others draw images. Convolutions with a norm per
voxel, so that a map in tiles is the map as a whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.config import MaskAutoencoderConfig
from neonet3d.generation.blocks import ChannelNorm, ResidualBlock
from neonet3d.generation.controlnet import one_hot, space_to_depth
from neonet3d.types import LabelBatch, LatentBatch, OneHotBatch

LOG_VARIANCE = (-20.0, 10.0)  # of the posterior
DICE_SMOOTHING = 1.0  # voxels; a class that a batch does not hold costs nothing


def depth_to_space(x: Float[Tensor, "b 8*c x y z"]) -> Float[Tensor, "b c 2*x 2*y 2*z"]:
    """Eight channels become a 2x2x2 block of voxels; inverse of ``space_to_depth``."""
    b, c, *size = x.shape
    blocks = x.reshape(b, c // 8, 2, 2, 2, *size).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return blocks.reshape(b, c // 8, *(2 * n for n in size))


class MaskAutoencoder(nn.Module):
    """``decode(encode(label_map))`` are logits of its classes. Sizes are multiples of 4.

    Buffers ``latent_mean`` and ``latent_std`` (c,) standardise the latent; they are fitted on the
    training fold after training.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: MaskAutoencoderConfig, n_classes: int) -> None:
        super().__init__()
        c, latent = config.channels, config.latent_channels
        self.n_classes = n_classes
        self.encoder = nn.Sequential(
            nn.Conv3d(64 * (n_classes - 1), 2 * c, 1),
            ResidualBlock(2 * c),
            ChannelNorm(2 * c),
            nn.Conv3d(2 * c, 2 * latent, 1),
        )
        self.coarse = nn.Sequential(
            nn.Conv3d(latent, 2 * c, 3, padding=1), ResidualBlock(2 * c), ResidualBlock(2 * c)
        )
        self.linear = nn.Conv3d(2 * c, 64 * n_classes, 1)
        self.fine = nn.Sequential(
            nn.ConvTranspose3d(2 * c, c, 2, stride=2),
            ResidualBlock(c),
            ChannelNorm(c),
            nn.SiLU(),
            nn.Conv3d(c, 8 * n_classes, 1),
        )
        self.register_buffer("latent_mean", torch.zeros(latent))
        self.register_buffer("latent_std", torch.ones(latent))

    def posterior(self, label_maps: LabelBatch) -> tuple[LatentBatch, LatentBatch]:
        """Mean and log variance of q(z | map), float32, not standardised."""
        memberships = space_to_depth(space_to_depth(one_hot(label_maps, self.n_classes)))
        mean, log_variance = self.encoder(memberships).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE)

    def logits(self, z: LatentBatch) -> OneHotBatch:
        """Of all classes, background first, for a latent that is not standardised."""
        h = self.coarse(z)
        plain = depth_to_space(self.linear(h)) + self.fine(h)
        return depth_to_space(plain.float())

    def encode(self, label_maps: LabelBatch) -> LatentBatch:
        """Mean of the posterior, standardised per channel."""
        mean, _ = self.posterior(label_maps)
        return (mean - _per_channel(self.latent_mean)) / _per_channel(self.latent_std)

    def decode(self, latent: LatentBatch) -> OneHotBatch:
        """Logits of a standardised latent."""
        return self.logits(latent * _per_channel(self.latent_std) + _per_channel(self.latent_mean))

    @torch.no_grad()
    def fit_latent_statistics(self, means: Float[Tensor, "n c x y z"]) -> None:
        """Set the statistics from the posterior means of the whole training fold."""
        self.latent_mean.copy_(means.mean((0, 2, 3, 4)))
        self.latent_std.copy_(means.std((0, 2, 3, 4)).clamp_min(1e-6))


class MaskObjective(nn.Module):
    """Weighted cross-entropy, plus soft Dice loss of the foreground, plus KL.

    Dice loss as in Milletari et al. 2016 (V-Net, arXiv 1606.04797), over the batch. The KL is a
    mean over the latent, as for images.

    Args:
        class_weight: of each class in the cross-entropy (``class_weights``).
    """

    class_weight: Tensor

    def __init__(
        self, autoencoder: MaskAutoencoder, kl_weight: float, class_weight: Float[Tensor, " k"]
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.kl_weight = kl_weight
        self.register_buffer("class_weight", class_weight, persistent=False)

    def forward(self, label_maps: LabelBatch) -> Tensor:
        mean, log_variance = self.autoencoder.posterior(label_maps)
        logits = self.autoencoder.logits(
            mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        )
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        entropy = F.cross_entropy(logits, label_maps.long(), self.class_weight)
        return entropy + _dice_loss(logits, label_maps) + self.kl_weight * kl


def class_weights(label_maps: LabelBatch, n_classes: int) -> Float[Tensor, " k"]:
    """Inverse square root of each class's share of the voxels, with mean 1 over all voxels.

    Thin veins weigh more, large organs less; the square root is our choice between the two wrongs
    of losing veins and of swelling them. A class that no map holds weighs nothing.
    """
    share = torch.bincount(label_maps.flatten().long(), minlength=n_classes).double()
    share = share / share.sum()
    weight = torch.where(share > 0, share.clamp_min(1e-12).rsqrt(), 0.0)
    return (weight / (weight * share).sum()).float()


def _dice_loss(logits: OneHotBatch, label_maps: LabelBatch) -> Tensor:
    n_classes = logits.shape[1]
    predicted, true = logits.softmax(1)[:, 1:], one_hot(label_maps, n_classes)
    shared = (predicted * true).sum((0, 2, 3, 4))
    total = predicted.sum((0, 2, 3, 4)) + true.sum((0, 2, 3, 4))
    return 1 - ((2 * shared + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()


def _per_channel(statistic: Float[Tensor, " c"]) -> Float[Tensor, "c 1 1 1"]:
    return statistic.view(-1, 1, 1, 1)
