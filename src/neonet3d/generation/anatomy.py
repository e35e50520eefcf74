"""What the anatomy alone says of a latent: mean and spread, in closed form.

    z = mu(m) + sigma(m) r        with m the label map and r what the flow has to generate

mu is a ridge regression of the latent on the label map around each latent voxel, plus the mean of
what that leaves at each place of the patch (all patches are cut alike); sigma is the spread of what
is left then, in each kind of place (dominant class, pure or mixed). The flow starts from an image
that already has its organs where the mask has them, and generates the residual, as in corrective
diffusion (CorrDiff, Mardani et al. 2023, arXiv 2309.15214; there the mean is a trained network). It
takes seconds to fit; ``model.json`` says how much of each channel it explains. Using it in a
mask-conditioned generator is our choice.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from neonet3d.generation.autoencoder import DOWNSAMPLING
from neonet3d.generation.controlnet import one_hot
from neonet3d.generation.ridge import RidgeRegression, neighbourhood
from neonet3d.generation.wavelet import haar
from neonet3d.types import LabelBatch, LatentBatch, Shape

RIDGE = 1e-3  # of the number of voxels
PURE = 0.95  # a latent voxel filled this far by one class is pure
PRIOR_PATCHES = 20.0  # weight of zero in the mean at a place
PRIOR_VOXELS = 50.0  # weight of the overall spread in the spread of a rare kind of place
FIT_BATCH = 32
FIT_PATCHES = 256  # as many patches, evenly taken, are plenty for a few hundred coefficients

Memberships = Float[Tensor, "b k x y z"]  # of the foreground classes, at full resolution


class AnatomyPrior(nn.Module):
    """Mean and spread of a standardised latent given the label map.

    Buffers: ``weight`` (features, c); ``place_mean`` (c, x, y, z); ``spread`` (2k, c), standard
    deviation in voxels dominated by class i, mixed at row i and pure at row k + i.
    """

    weight: Tensor
    place_mean: Tensor
    spread: Tensor

    def __init__(self, n_classes: int, latent_channels: int, latent_shape: Shape) -> None:
        super().__init__()
        self.n_classes = n_classes
        n_features = 64 * (n_classes - 1) + 27 * n_classes + 1
        self.register_buffer("weight", torch.zeros(n_features, latent_channels))
        self.register_buffer("place_mean", torch.zeros(latent_channels, *latent_shape))
        self.register_buffer("spread", torch.ones(2 * n_classes, latent_channels))

    @torch.no_grad()
    def fit(self, latents: LatentBatch, label_maps: LabelBatch) -> Float[Tensor, " c"]:
        """Least squares over latent voxels of the training fold, then the spread per place.

        Returns:
            Share of each channel's variance that the mean explains, on the same voxels.
        """
        step = math.ceil(len(latents) / FIT_PATCHES)
        latents, label_maps = latents[::step], label_maps[::step]
        regression = RidgeRegression(len(self.weight), latents.shape[1], penalty=RIDGE)
        for z, maps in self._parts(latents, label_maps):
            regression.add(self._features(one_hot(maps, self.n_classes)), z.movedim(1, -1))
        self.weight.copy_(regression.solve())

        left = torch.cat([z - self.mean(maps) for z, maps in self._parts(latents, label_maps)])
        self.place_mean.copy_(left.sum(0) / (len(left) + PRIOR_PATCHES))

        total = torch.zeros(self.spread.shape, dtype=torch.float64)
        count = torch.zeros(len(self.spread), 1, dtype=torch.float64)
        for z, maps in self._parts(latents, label_maps):
            square = (z - self.mean(maps)).square().movedim(1, -1).flatten(0, 3).double()
            place = _place(one_hot(maps, self.n_classes)).flatten()
            place = F.one_hot(place, len(self.spread)).double()
            total += place.T @ square
            count += place.sum(0)[:, None]
        overall = total.sum(0) / count.sum()
        variance = (total + PRIOR_VOXELS * overall) / (count + PRIOR_VOXELS)
        self.spread.copy_(variance.sqrt().clamp_min(1e-3))
        return (1 - overall / latents.var((0, 2, 3, 4)).double()).float()

    def mean(self, label_maps: LabelBatch) -> LatentBatch:
        """mu(m)."""
        return self._mean(one_hot(label_maps, self.n_classes))

    def deviation(self, label_maps: LabelBatch) -> LatentBatch:
        """sigma(m)."""
        return self._deviation(one_hot(label_maps, self.n_classes))

    def residual(self, z: LatentBatch, label_maps: LabelBatch) -> LatentBatch:
        """r = (z - mu(m)) / sigma(m)."""
        memberships = one_hot(label_maps, self.n_classes)
        return (z - self._mean(memberships)) / self._deviation(memberships)

    def restore(self, r: LatentBatch, label_maps: LabelBatch) -> LatentBatch:
        """z = mu(m) + sigma(m) r, the inverse of ``residual``."""
        memberships = one_hot(label_maps, self.n_classes)
        return self._mean(memberships) + self._deviation(memberships) * r

    def _mean(self, memberships: Memberships) -> LatentBatch:
        return (self._features(memberships) @ self.weight).movedim(-1, 1) + self.place_mean

    def _deviation(self, memberships: Memberships) -> LatentBatch:
        return self.spread[_place(memberships)].movedim(-1, 1)

    def _features(self, memberships: Memberships) -> Float[Tensor, "b x y z f"]:
        """Wavelets of the map inside each latent voxel; fractions of the classes around it; 1."""
        inside = haar(haar(memberships))
        around = neighbourhood(_fractions(memberships))
        ones = torch.ones_like(around[..., :1])
        return torch.cat([inside.movedim(1, -1), around, ones], dim=-1)

    @staticmethod
    def _parts(latents: Tensor, label_maps: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(latents.split(FIT_BATCH), label_maps.split(FIT_BATCH), strict=True))


def _fractions(memberships: Memberships) -> Float[Tensor, "b k+1 u v w"]:
    """Share of each class in each latent voxel, background first."""
    foreground = F.avg_pool3d(memberships, DOWNSAMPLING)
    return torch.cat([1 - foreground.sum(1, keepdim=True), foreground], dim=1)


def _place(memberships: Memberships) -> Int[Tensor, "b u v w"]:
    """Row of ``spread`` for each latent voxel."""
    fraction, dominant = _fractions(memberships).max(1)
    return dominant + (memberships.shape[1] + 1) * (fraction >= PURE)
