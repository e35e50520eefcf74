"""What the training masks of a fold are like: the conditions that new ones are drawn for, and how
small a piece of a class may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from scipy import ndimage
from torch import Tensor, nn

from neonet3d.errors import InputError
from neonet3d.metrics.lesions import TOUCHING
from neonet3d.types import LabelMap, LabelSchema, Triple

STRAY_QUANTILE = 0.02  # of the sizes of a class's pieces in training; smaller ones are stray
ROUNDING = 1e-4  # volumes are stored in float32
N_NUMBERS = 5  # standardised log volume, no tumour, log scale along x, y, z


@dataclass(frozen=True)
class MaskConditions:
    """What maps are to be drawn for.

    Attributes:
        outcomes: (n,) 0, 1, or -1 where it is not said.
        volumes_mm3: (n,) of the tumour; 0 for none.
        log_scale: (n, 3) as ``Patches.log_scale``.
        sources: (n,) the training cases they are those of, by their place among
            ``card.training_cases``.
    """

    outcomes: Int[Tensor, " n"]
    volumes_mm3: Float[Tensor, " n"]
    log_scale: Float[Tensor, "n 3"]
    sources: Int[Tensor, " n"]

    def rows(self, rows: Tensor) -> MaskConditions:
        """Of some of the maps."""
        return MaskConditions(
            self.outcomes[rows], self.volumes_mm3[rows], self.log_scale[rows], self.sources[rows]
        )


class MaskStatistics(nn.Module):
    """Of one training fold; it holds numbers, no mask.

    Buffers, one row per training case: ``outcomes`` (n,), ``volumes_mm3`` (n,) of the tumour,
    ``log_scale`` (n, 3). One row per class: ``smallest`` (k,) voxels of a piece and ``usual`` (k,)
    pieces of a map, the median over the maps that have the class.
    """

    outcomes: Tensor
    volumes_mm3: Tensor
    log_scale: Tensor
    smallest: Tensor
    usual: Tensor

    def __init__(self, n_cases: int, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("outcomes", torch.full((n_cases,), -1))
        self.register_buffer("volumes_mm3", torch.zeros(n_cases))
        self.register_buffer("log_scale", torch.zeros(n_cases, 3))
        self.register_buffer("smallest", torch.zeros(n_classes, dtype=torch.long))
        self.register_buffer("usual", torch.zeros(n_classes, dtype=torch.long))

    @torch.no_grad()
    def fit(
        self,
        label_maps: UInt8[Tensor, "n x y z"],
        outcomes: Int[Tensor, " n"],
        log_scale: Float[Tensor, "n 3"],
        schema: LabelSchema,
        spacing_mm: Triple,
    ) -> None:
        """Measure the training masks, which lie on a grid of ``spacing_mm``."""
        self.outcomes.copy_(outcomes)
        self.log_scale.copy_(log_scale)
        self.volumes_mm3.copy_(tumour_volumes_mm3(label_maps, schema, spacing_mm, log_scale))
        for k in range(len(schema)):
            pieces = [piece_sizes(m, k) for m in label_maps.numpy()]
            sizes = np.concatenate(pieces)
            if len(sizes):
                self.usual[k] = int(np.median([len(of_map) for of_map in pieces if len(of_map)]))
                self.smallest[k] = int(np.quantile(sizes, STRAY_QUANTILE, method="lower"))

    def numbers(self, wanted: MaskConditions) -> Float[Tensor, "n 5"]:
        """Conditions as the flow sees them; 0 is the usual."""
        some = self.volumes_mm3 > 0
        known = self.volumes_mm3[some].log()
        present = wanted.volumes_mm3 > 0
        size = torch.zeros_like(wanted.volumes_mm3)
        if len(known):
            log_volume = wanted.volumes_mm3.clamp_min(1e-6).log()
            scaled = (log_volume - known.mean()) / known.std(correction=0).clamp_min(1e-3)
            size = torch.where(present, scaled, 0.0)
        absent = (~present).float() if bool(some.any()) else torch.zeros_like(size)
        return torch.cat([size[:, None], absent[:, None], wanted.log_scale], dim=1)

    def draw(
        self,
        n: int,
        generator: torch.Generator,
        *,
        outcome: int | None = None,
        volume_mm3: float | None = None,
    ) -> MaskConditions:
        """Conditions of ``n`` new maps: those of training cases, drawn with replacement.

        Tumour volumes are drawn by a smoothed bootstrap (Silverman's bandwidth on the logarithm,
        kept within the range of training). Outcome and log scale come with the case; with a given
        volume, from one of the cases whose volumes are nearest to it.

        Raises:
            InputError: an outcome or a volume that no training case has.
        """
        here = torch.arange(len(self.outcomes), device=self.outcomes.device)
        if outcome is not None:
            here = here[self.outcomes == outcome]
            if len(here) == 0:
                raise InputError(
                    f"The mask generator was trained on no case with the outcome {outcome}. "
                    "Say another label or none."
                )
        if volume_mm3 is not None:
            here = self._near(here, volume_mm3)
        chosen = here[torch.randint(len(here), (n,), generator=generator).to(here)]
        volumes = self.volumes_mm3[chosen]
        if volume_mm3 is not None:
            volumes = torch.full_like(volumes, volume_mm3)
        else:
            volumes = self._smoothed(volumes, torch.randn(n, generator=generator).to(volumes))
        return MaskConditions(self.outcomes[chosen], volumes, self.log_scale[chosen], chosen)

    def _near(self, rows: Tensor, volume_mm3: float) -> Tensor:
        known = self.volumes_mm3[self.volumes_mm3 > 0]
        if len(known) == 0:
            raise InputError(
                "The training masks of this generator hold no tumour. Leave the volume out."
            )
        low, high = float(known.min()), float(known.max())
        if not low * (1 - ROUNDING) <= volume_mm3 <= high * (1 + ROUNDING):
            raise InputError(
                f"A tumour of {volume_mm3:g} mm3 was asked for, but those of training have "
                f"{low:.0f} to {high:.0f} mm3. Ask for one between."
            )
        rows = rows[self.volumes_mm3[rows] > 0]
        if len(rows) == 0:
            raise InputError("No training case of this outcome has a tumour. Leave the volume out.")
        apart = (self.volumes_mm3[rows].log() - math.log(volume_mm3)).abs()
        return rows[apart.argsort()[: max(1, len(rows) // 10)]]

    def _smoothed(self, volumes: Tensor, noise: Tensor) -> Tensor:
        known = self.volumes_mm3[self.volumes_mm3 > 0]
        if len(known) == 0:
            return volumes
        bandwidth = 1.06 * known.log().std(correction=0) * len(known) ** -0.2
        moved = (volumes.clamp_min(1e-6).log() + bandwidth * noise).exp()
        return torch.where(volumes > 0, moved.clamp(known.min(), known.max()), volumes)

    def cleaned(self, label_map: LabelMap, spacing_mm: Triple) -> LabelMap:
        """Without stray pieces: each such voxel takes the class of the nearest other voxel.

        A piece (26 neighbours) is stray when it is smaller than nearly all of training, or when the
        map holds as many larger ones of its class as a training map usually has. The largest of a
        class stays if training has the class at all.
        """
        stray = np.zeros(label_map.shape, bool)
        for k in range(len(self.smallest)):
            pieces, _ = ndimage.label(label_map == k, TOUCHING)
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            order = np.argsort(-sizes, kind="stable")
            keep = np.zeros(len(sizes), bool)
            keep[order[: int(self.usual[k])]] = True
            keep &= sizes >= int(self.smallest[k])
            keep[order[0]] = self.usual[k] > 0
            stray |= (pieces > 0) & ~keep[pieces]
        if stray.all() or not stray.any():
            return label_map
        nearest = ndimage.distance_transform_edt(
            stray, sampling=spacing_mm, return_distances=False, return_indices=True
        )
        cleaned: LabelMap = label_map[tuple(nearest)]
        return cleaned


def tumour_volumes_mm3(
    label_maps: UInt8[Tensor, "n x y z"],
    schema: LabelSchema,
    spacing_mm: Triple,
    log_scale: Float[Tensor, "n 3"],
) -> Float[Tensor, " n"]:
    """Of each map on a grid, at its own scale; 0 where the schema knows no tumour."""
    if "tumour" not in schema:
        return torch.zeros(len(label_maps))
    voxels = (label_maps == schema.value("tumour")).sum((1, 2, 3)).float()
    return voxels * float(np.prod(spacing_mm)) * log_scale.sum(1).exp()


def piece_sizes(label_map: LabelMap, value: int) -> Int[np.ndarray, " p"]:
    """Voxels of each piece of a class."""
    return np.bincount(ndimage.label(label_map == value, TOUCHING)[0].ravel())[1:]
