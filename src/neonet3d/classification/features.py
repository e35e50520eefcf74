"""Frozen features, computed once: what PattenNet reads of every case, in several orientations.

``residual``: how the patient's latent differs from what the anatomy prior says of the mask. It is
one field, and is flipped as such. ``maps``: every level of the encoder. Those are not equivariant
to flips (a flip negates Haar details), so the flip comes before the encoding, and several encodings
of each case are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neonet3d.classification.distances import batch_distances
from neonet3d.classification.regions import batch_region_maps, shrink
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.patches import Orientation, Patches, orientations_of
from neonet3d.config import FeatureKind
from neonet3d.engine.device import fabric
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.autoencoder import DOWNSAMPLING, Encoder
from neonet3d.generation.latents import ENCODE_BATCH, centre_latents
from neonet3d.generation.wavelet import haar
from neonet3d.types import ImageBatch, LabelSchema, LatentBatch

Levels = tuple[Tensor, ...]  # (e, n, c, ...), the finest first


@dataclass(frozen=True)
class FrozenFeatures:
    """Maps of n cases in e orientations; bfloat16, since they are means that were rounded once.

    Attributes:
        levels: (e, n, c, x, y, z) each: the residual at a quarter of the resolution; or the
            encoder's maps at half of it (wavelet coefficients and first level) and at a quarter
            (second level and latent).
        distances: (e, n or 1, k, x, y, z) each, on the same grids: signed distances to every class,
            or none (k = 0).
        regions: (e, n or 1, r, x, y, z) each: soft regions on the same grids.
        amplitudes: (n, k) of the appearance factors; k is 0 without an anatomy prior.
        traits: (n, d) of ``traits_of``.
    """

    levels: Levels
    distances: Levels
    regions: Levels
    amplitudes: Float[Tensor, "n k"]
    traits: Float[Tensor, "n d"]

    def __len__(self) -> int:
        return self.levels[0].shape[1]

    @property
    def n_encodings(self) -> int:
        return len(self.levels[0])

    def batch(self, encoding: int, index: Tensor) -> list[Tensor]:
        """float32 inputs of PattenNet for some cases in one orientation."""

        def of_cases(maps: Tensor) -> Tensor:
            shared = maps.shape[1] == 1  # by all cases
            return maps[encoding, torch.zeros_like(index) if shared else index].float()

        return [
            *(level[encoding, index].float() for level in self.levels),
            *map(of_cases, self.distances),
            *map(of_cases, self.regions),
            self.amplitudes[index],
        ]


def encodings_of(grid: Grid, n: int, *, seed: int) -> list[Orientation]:
    """The identity and n - 1 other orientations, drawn once."""
    identity, *others = orientations_of(grid)
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))
    return [identity, *(others[i] for i in order[: n - 1].tolist())]


@torch.inference_mode()
def encode_patches(
    encoder: Encoder,
    anatomy: AnatomyPrior | None,
    kind: FeatureKind,
    patches: Patches,
    schema: LabelSchema,
    orientations: list[Orientation],
    *,
    shell_mm: float,
    distances: bool,
) -> FrozenFeatures:
    """Run the frozen encoder over every case in every orientation, the identity first.

    Args:
        anatomy: that of the encoder's fold; ``residual`` needs one.
        distances: to every class of the mask, too.
    """
    latents = _latents(encoder, patches)
    amplitudes = torch.zeros(len(patches), 0)
    if anatomy is not None:
        maps = patches.required_label_maps()
        centred, amplitudes = centre_latents(anatomy, latents, maps)
    if kind == "maps":
        levels = _encoded(encoder, patches, orientations)
    else:
        assert anatomy is not None
        levels = (torch.stack([turn.apply(centred).bfloat16() for turn in orientations]),)
    factors = [DOWNSAMPLING // 2**i for i in reversed(range(len(levels)))]

    def on_levels(maps: Float[Tensor, "n r x y z"]) -> Levels:
        turned = [orientation.apply(maps) for orientation in orientations]
        return tuple(torch.stack([shrink(of, factor) for of in turned]) for factor in factors)

    none = torch.zeros(1, 0, *patches.shape)
    away = batch_distances(patches, schema) if distances else none
    regions = batch_region_maps(patches, schema, shell_mm=shell_mm)
    return FrozenFeatures(
        levels, on_levels(away), on_levels(regions), amplitudes, traits_of(patches.images, latents)
    )


def feature_maps(
    encoder: Encoder, images: ImageBatch
) -> tuple[Float[Tensor, "b f x y z"], Float[Tensor, "b g u v w"]]:
    """Every level of the encoder, at half and at quarter resolution."""
    maps = encoder.maps(images)
    fine = torch.cat([maps.haar, maps.fine.float()], dim=1)
    return fine, torch.cat([maps.coarse.float(), maps.latent], dim=1)


def traits_of(images: Float[Tensor, "n x y z"], latents: LatentBatch) -> Float[Tensor, "n 2*c+8"]:
    """What a patch is like as a whole, for telling the unfamiliar.

    Mean and log spread of each latent channel, and the log spread of each Haar band of the image:
    other organs and contrasts move the first, noise, blur and resampling the last.
    """
    flat = latents.flatten(2)
    bands = torch.cat([haar(part[:, None]).flatten(2).std(2) for part in images.split(64)])
    spreads = torch.cat([flat.std(2), bands], dim=1).clamp_min(1e-4).log()
    return torch.cat([flat.mean(2), spreads], dim=1)


def _latents(encoder: Encoder, patches: Patches) -> LatentBatch:
    """Standardised, of the patches as they lie; on the CPU."""
    here, found = fabric(), []
    for part in patches.images.split(ENCODE_BATCH):
        with here.autocast():
            found.append(encoder(here.to_device(part)[:, None]).float().cpu())
    return torch.cat(found)


def _encoded(encoder: Encoder, patches: Patches, orientations: list[Orientation]) -> Levels:
    here = fabric()
    fine: list[Tensor] = []
    coarse: list[Tensor] = []
    for orientation in orientations:
        for part in orientation.apply(patches.images).split(ENCODE_BATCH):
            with here.autocast():
                maps = feature_maps(encoder, here.to_device(part)[:, None])
            for level, of_part in zip((fine, coarse), maps, strict=True):
                level.append(of_part.bfloat16().cpu())
    encodings = (len(orientations), len(patches))
    return tuple(_joined(parts).unflatten(0, encodings) for parts in (fine, coarse))


def _joined(parts: list[Tensor]) -> Tensor:
    """``torch.cat`` that lets go of each part as it is copied: they are most of the memory."""
    whole = parts[0].new_empty(sum(len(part) for part in parts), *parts[0].shape[1:])
    row = 0
    while parts:
        part = parts.pop(0)
        whole[row : row + len(part)] = part
        row += len(part)
    return whole
