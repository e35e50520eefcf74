"""Patches through the autoencoder: a training fold as latents, encoded once.

An encoder of 4x4x4 blocks is not equivariant to moves by single voxels, so augmentation comes
before encoding; encoding once makes the training of the flow free of the autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import Patches, draw_shifts, load_patches
from neonet3d.config import Config, Section
from neonet3d.engine.artefact import ArtefactCard, new_card
from neonet3d.engine.device import fabric
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.autoencoder import Autoencoder
from neonet3d.generation.latent_flow import load_autoencoder
from neonet3d.generation.tiles import decode_tiled, encode_tiled

ENCODE_BATCH = 16
ENCODINGS = 2048  # in all, where that is between the next two for each case
FEWEST_VIEWS, MOST_VIEWS = 4, 16  # encodings of each training case, in different positions
LARGEST_SHIFT = 3  # voxels


def n_views(n_cases: int) -> int:
    """Positions in which each of so many training cases is encoded.

    The fewer cases there are, the sooner a flow learns them by heart; and many take much memory.
    """
    return max(FEWEST_VIEWS, min(MOST_VIEWS, ENCODINGS // n_cases))


@dataclass(frozen=True)
class FoldLatents:
    """The training fold as latents; encoded when first asked for, since a finished part needs none.

    There are no flips: a liver has a left and a right, and few steps are better spent on one
    orientation. Case i in position v is row ``v * n_cases + i``.
    """

    fold: Fold
    folder: Path

    @cached_property
    def model(self) -> tuple[Autoencoder, ArtefactCard]:
        return load_autoencoder(self.folder)

    @cached_property
    def patches(self) -> Patches:
        """The training cases where they lie."""
        card = self.model[1]
        return load_patches(self.fold.training, *card.reading)

    def views(self) -> Iterator[Patches]:
        """The cases in each of ``n_views`` positions, one after the other."""
        shifts = draw_shifts(n_views(len(self.patches)), LARGEST_SHIFT, seed=self.model[1].seed)
        return (self.patches.moved(shift) for shift in shifts)

    @cached_property
    def encoded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Latents, label maps, outcomes and log scales of all positions, on the CPU."""
        autoencoder, _ = self.model
        latents, label_maps, outcomes, scales = [], [], [], []
        for view in self.views():
            latents.append(standardised_latents(autoencoder, view.images))
            label_maps.append(view.required_label_maps())
            outcomes.append(view.outcomes)
            scales.append(view.log_scale)
        return torch.cat(latents), torch.cat(label_maps), torch.cat(outcomes), torch.cat(scales)


def rows_of_views(n_cases: int, n_positions: int, most: int) -> Int[Tensor, " m"]:
    """About ``most`` rows of ``FoldLatents.encoded``: cases evenly, as are the positions of each.

    Where there are fewer cases than ``most``, each has equally many positions, its own among them.
    """
    cases = torch.arange(0, n_cases, -(-n_cases // most))
    views = torch.arange(0, n_positions, -(-n_positions // max(1, most // len(cases))))
    return (views[:, None] * n_cases + cases).flatten()


@torch.no_grad()
def explain_latents(
    anatomy: AnatomyPrior, latents: Tensor, label_maps: Tensor
) -> tuple[Tensor, Tensor]:
    """Residuals and amplitudes of many latents (``AnatomyPrior.explain``), on the CPU."""
    return _in_parts(anatomy.explain, latents, label_maps)


@torch.no_grad()
def centre_latents(
    anatomy: AnatomyPrior, latents: Tensor, label_maps: Tensor
) -> tuple[Tensor, Tensor]:
    """What ``AnatomyPrior.centred`` says of many latents, on the CPU."""
    return _in_parts(anatomy.centred, latents, label_maps)


def _in_parts(
    say: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], latents: Tensor, label_maps: Tensor
) -> tuple[Tensor, Tensor]:
    here = fabric()
    parts = zip(latents.split(ENCODE_BATCH), label_maps.split(ENCODE_BATCH), strict=True)
    found = [say(here.to_device(z), here.to_device(maps)) for z, maps in parts]
    first, amplitudes = zip(*found, strict=True)
    return torch.cat(first).cpu(), torch.cat(amplitudes).cpu()


def anatomy_residuals(anatomy: AnatomyPrior, latents: Tensor, label_maps: Tensor) -> Tensor:
    return explain_latents(anatomy, latents, label_maps)[0]


def standardised_latents(model: Autoencoder, images: Tensor) -> Tensor:
    """In tiles, on the CPU; the posterior means themselves before their statistics are fitted."""
    here = fabric()
    with torch.no_grad(), here.autocast():
        parts = [
            encode_tiled(model, here.to_device(p)[:, None]).cpu()
            for p in images.split(ENCODE_BATCH)
        ]
    return torch.cat(parts)


def reconstructions(model: Autoencoder, images: Tensor) -> Tensor:
    here = fabric()
    with torch.no_grad(), here.autocast():
        parts = [
            decode_tiled(model, encode_tiled(model, here.to_device(p)[:, None]))[:, 0].float()
            for p in images.split(ENCODE_BATCH)
        ]
    return torch.cat(parts)


def child_card(
    kind: str, section: Section, data: FoldLatents, config: Config, **parents: ArtefactCard
) -> ArtefactCard:
    """Card of a part that works on the grid of the part it was built on."""
    parent = next(iter(parents.values()))
    return new_card(
        kind,
        fold=data.fold,
        config=section,
        seed=config.seed,
        normaliser=parent.normaliser,
        grid=parent.grid,
        parents=parents,
    )
