"""Frozen features, computed once: what the encoder says of every case, in several orientations.

Feature maps of an encoder are not equivariant to flips (and a flip negates Haar details), so the
augmentation comes before the encoding, and several augmented encodings of each case are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neonet3d.classification.regions import batch_region_maps, shrink
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.patches import Orientation, Patches, orientations_of
from neonet3d.engine.device import fabric
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.autoencoder import Encoder
from neonet3d.generation.latents import explain_latents
from neonet3d.types import ImageBatch, LabelSchema

ENCODE_BATCH = 32


@dataclass(frozen=True)
class FrozenFeatures:
    """Maps of n cases in e orientations; bfloat16, since they are means that were rounded once.

    Attributes:
        fine: (e, n, f, x/2, y/2, z/2) wavelet coefficients and first level.
        coarse: (e, n, g, x/4, y/4, z/4) second level and latent.
        fine_regions, coarse_regions: (e, n or 1, r, ...) soft regions on the same grids.
        amplitudes: (n, k) of the appearance factors, in the patch's own orientation, since the
            anatomy prior knows left from right; k is 0 without one.
    """

    fine: Float[Tensor, "e n f x y z"]
    coarse: Float[Tensor, "e n g x y z"]
    fine_regions: Float[Tensor, "e m r x y z"]
    coarse_regions: Float[Tensor, "e m r x y z"]
    amplitudes: Float[Tensor, "n k"]

    def __len__(self) -> int:
        return self.fine.shape[1]

    @property
    def n_encodings(self) -> int:
        return len(self.fine)

    def batch(self, encoding: int, index: Tensor) -> list[Tensor]:
        """float32 inputs of PattenNet for some cases in one orientation."""
        region_index = index if self.fine_regions.shape[1] > 1 else torch.zeros_like(index)
        return [
            self.fine[encoding, index].float(),
            self.coarse[encoding, index].float(),
            self.fine_regions[encoding, region_index],
            self.coarse_regions[encoding, region_index],
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
    patches: Patches,
    schema: LabelSchema,
    orientations: list[Orientation],
    *,
    shell_mm: float,
) -> FrozenFeatures:
    """Run the frozen encoder over every case in every orientation, the identity first."""
    here = fabric()
    regions = batch_region_maps(
        patches.label_maps, schema, patches.shape, spacing_mm=patches.spacing_mm, shell_mm=shell_mm
    )
    fine: list[Tensor] = []
    coarse: list[Tensor] = []
    for orientation in orientations:
        images = orientation.apply(patches.images)
        for part in images.split(ENCODE_BATCH):
            with here.autocast():
                maps = feature_maps(encoder, here.to_device(part)[:, None])
            for level, of_part in zip((fine, coarse), maps, strict=True):
                level.append(of_part.bfloat16().cpu())
    amplitudes = torch.zeros(len(patches), 0)
    if anatomy is not None:
        channels, own = len(encoder.latent_mean), coarse[: -(-len(patches) // ENCODE_BATCH)]
        latents = torch.cat([part[:, -channels:].float() for part in own])
        amplitudes = explain_latents(anatomy, latents, patches.required_label_maps())[1]
    turned = [orientation.apply(regions) for orientation in orientations]
    encodings = (len(orientations), len(patches))
    return FrozenFeatures(
        _joined(fine).unflatten(0, encodings),
        _joined(coarse).unflatten(0, encodings),
        torch.stack([shrink(maps, 2) for maps in turned]),
        torch.stack([shrink(maps, 4) for maps in turned]),
        amplitudes,
    )


def feature_maps(
    encoder: Encoder, images: ImageBatch
) -> tuple[Float[Tensor, "b f x y z"], Float[Tensor, "b g u v w"]]:
    """What PattenNet reads at half and at quarter resolution: every level of the encoder."""
    maps = encoder.maps(images)
    fine = torch.cat([maps.haar, maps.fine.float()], dim=1)
    return fine, torch.cat([maps.coarse.float(), maps.latent], dim=1)


def _joined(parts: list[Tensor]) -> Tensor:
    """``torch.cat`` that lets go of each part as it is copied: they are most of the memory."""
    whole = parts[0].new_empty(sum(len(part) for part in parts), *parts[0].shape[1:])
    row = 0
    while parts:
        part = parts.pop(0)
        whole[row : row + len(part)] = part
        row += len(part)
    return whole
