"""The detail decoder: draws what the latent lost, texture above all, in one pass.

    haar(scan) = haar(refined) + s * F(refined, map, texture profile, noise)

An autoencoder returns the mean of what a scan may have been, which is smooth; a classifier tells
it from a scan at a glance. This small network adds one *draw* of the rest, at half the resolution.
It begins as white noise of the measured level of each band, and learns from the energy score
(``energy_score.py``) how texture depends on tissue, edges and scanner. Its training pairs are the
fold's patches beside their reconstructions; it knows no outcome label. A refiner goes before it, as
it does when the flow draws, but one that was fitted on reconstructions: a decoder that has learned
to sharpen what is blurred would sharpen twice what the flow's refiner has sharpened. Having the
detail decoder, and training it so, is our choice.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.config import DetailConfig
from neonet3d.generation.autoencoder import DOWNSAMPLING
from neonet3d.generation.blocks import (
    ChannelNorm,
    ConditionLinear,
    FilmResidualBlock,
    zero_initialised,
)
from neonet3d.generation.controlnet import one_hot, space_to_depth
from neonet3d.generation.refiner import Refiner
from neonet3d.generation.texture import BANDS, PROFILE, texture_profiles
from neonet3d.generation.tiles import LARGEST_TILE, choose_core, map_tiles, reach
from neonet3d.generation.wavelet import haar, haar_inverse
from neonet3d.types import ImageBatch, LabelBatch

EMBEDDING = 32
UNIT = DOWNSAMPLING // 2  # of ``tiles.py``, in voxels at half the resolution
Profiles = Float[Tensor, "b 16"]
Bands = Float[Tensor, "b 8 x y z"]


class DetailDecoder(nn.Module):
    """One draw of the detail of a refined patch. No statistic crosses voxels.

    ``refiner`` is that of reconstructions, fitted before training.

    Buffers, measured on the training fold: ``band_spread`` (8,) of what reconstructions lack;
    ``profile_mean`` and ``profile_spread`` (16,) standardise texture profiles; ``profiles`` (n, 16)
    of the training cases, standardised.
    """

    band_spread: Tensor
    profile_mean: Tensor
    profile_spread: Tensor
    profiles: Tensor

    def __init__(self, n_classes: int, n_profiles: int, config: DetailConfig) -> None:
        super().__init__()
        c = config.channels
        self.n_classes = n_classes
        self.refiner = Refiner(n_classes)
        self.embed = nn.Sequential(
            ConditionLinear(PROFILE, EMBEDDING),
            nn.SiLU(),
            ConditionLinear(EMBEDDING, EMBEDDING),
            nn.SiLU(),
        )
        self.stem = nn.Conv3d(2 * BANDS + 8 * (n_classes - 1), c, 3, padding=1)
        self.down = nn.Conv3d(c, 4 * c, 2, stride=2)
        self.coarse = FilmResidualBlock(4 * c, EMBEDDING)
        self.up = nn.ConvTranspose3d(4 * c, c, 2, stride=2)
        self.merge = FilmResidualBlock(c, EMBEDDING)
        self.norm = ChannelNorm(c)
        self.head = zero_initialised(nn.Conv3d(c, BANDS, 3, padding=1))
        self.register_buffer("band_spread", torch.ones(BANDS))
        self.register_buffer("profile_mean", torch.zeros(PROFILE))
        self.register_buffer("profile_spread", torch.ones(PROFILE))
        self.register_buffer("profiles", torch.zeros(n_profiles, PROFILE))

    @torch.no_grad()
    def fit_texture(
        self,
        images: Float[Tensor, "n x y z"],
        reconstructions: Float[Tensor, "n x y z"],
        label_maps: LabelBatch,
    ) -> None:
        """Measure the buffers on the training cases and their reconstructions."""
        lost = haar((images - reconstructions)[:, None])
        self.band_spread.copy_(lost.std((0, 2, 3, 4)).clamp_min(1e-6))
        found = texture_profiles(images, reconstructions, label_maps)
        self.profile_mean.copy_(found.mean(0))
        self.profile_spread.copy_(found.std(0).nan_to_num(1.0).clamp_min(1e-2))
        self.profiles.copy_((found - self.profile_mean) / self.profile_spread)

    def inputs(self, decoded: ImageBatch, label_maps: LabelBatch, noise: Bands) -> Tensor:
        """What the convolutions see, at half the resolution."""
        memberships = space_to_depth(one_hot(label_maps, self.n_classes))
        return torch.cat([noise, haar(decoded.float()), memberships], dim=1)

    def forward(self, inputs: Tensor, profile: Profiles) -> Bands:
        """Coefficients of the detail over their spread.

        Args:
            inputs: of ``inputs``.
            profile: standardised.
        """
        embedding = self.embed(profile)
        fine = self.stem(inputs)
        coarse = self.coarse(self.down(fine), embedding)
        h = self.merge(fine + self.up(coarse), embedding)
        level = (profile * self.profile_spread + self.profile_mean)[:, :BANDS].exp()
        noise = inputs[:, :BANDS] * (level / self.band_spread)[..., None, None, None]
        return noise + self.head(F.silu(self.norm(h))).float()

    def draw(
        self, decoded: ImageBatch, label_maps: LabelBatch, generator: torch.Generator
    ) -> ImageBatch:
        """Patches with detail, in [-1, 1], each with the texture profile of some training case.

        Args:
            generator: on the CPU; decides profiles and noise.
        """
        decoded = decoded.float()
        rows = torch.randint(len(self.profiles), (len(decoded),), generator=generator)
        shape = (len(decoded), BANDS, *(n // 2 for n in decoded.shape[2:]))
        noise = torch.randn(shape, generator=generator).to(decoded.device)
        profile = self.profiles[rows.to(self.profiles.device)]
        inputs = self.inputs(decoded, label_maps, noise)
        a, b, c = (n // DOWNSAMPLING for n in decoded.shape[2:])
        if len(decoded) * a * b * c <= LARGEST_TILE:
            bands = self(inputs, profile)
        else:
            halo = math.ceil(reach(self.path(), voxel=2) / DOWNSAMPLING)
            core = choose_core((a, b, c), halo, LARGEST_TILE)
            bands = torch.cat(
                [
                    map_tiles(
                        lambda part, own=own: self(part, own),  # type: ignore[misc]
                        whole,
                        unit_in=UNIT,
                        unit_out=UNIT,
                        halo=halo,
                        core=core,
                    )
                    for whole, own in zip(inputs.split(1), profile.split(1), strict=True)
                ]
            )
        return (decoded + haar_inverse(bands * _per_band(self.band_spread))).clamp(-1, 1)

    def path(self) -> tuple[nn.Module, ...]:
        """The layers from the inputs to the coefficients, for ``tiles.reach``."""
        last = (*self.merge.path(), self.norm, self.head)
        return (self.stem, self.down, *self.coarse.path(), self.up, *last)


def _per_band(statistic: Float[Tensor, " 8"]) -> Float[Tensor, "8 1 1 1"]:
    return statistic.view(-1, 1, 1, 1)
