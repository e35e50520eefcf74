"""Training the detail decoder: patches beside their reconstructions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from neonet3d.cohort.patches import orientations_of
from neonet3d.config import Config
from neonet3d.engine.artefact import claim_folder, save_artefact
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.generation.generator import build_detail
from neonet3d.generation.latents import VIEWS, FoldLatents, child_card, reconstructions
from neonet3d.generation.objectives import DetailObjective
from neonet3d.types import Shape

PAIRS = 512  # patches, evenly taken over the positions, are plenty for a texture
CROP = 32  # voxels of an edge; texture is local, and small crops are many


def train_detail(data: FoldLatents, config: Config, folder: Path) -> None:
    """The detail decoder beside the autoencoder of ``folder``."""
    autoencoder, parent = data.model
    card = child_card("DetailDecoder", config.detail, data, config, autoencoder=parent)
    if claim_folder(folder / "detail", card):
        return
    detail = seeded(config.seed, lambda: build_detail(card))
    patches = data.patches
    detail.fit_texture(
        patches.images,
        reconstructions(autoencoder, patches.images).cpu(),
        patches.required_label_maps(),
    )
    every = -(-VIEWS * len(patches) // PAIRS)
    scans, decoded, label_maps = [], [], []
    for number, view in enumerate(data.views()):
        rows = torch.arange(len(patches))
        rows = rows[(rows + number * len(patches)) % every == 0]
        scans.append(view.images[rows])
        decoded.append(reconstructions(autoencoder, view.images[rows]).cpu())
        label_maps.append(view.required_label_maps()[rows])
    profiles = detail.profiles.repeat(VIEWS, 1)[::every]
    pairs = [torch.cat(part) for part in (scans, decoded, label_maps)]
    orientations, loop = orientations_of(card.grid), config.detail.loop

    def draw(generator: torch.Generator) -> list[Tensor]:
        rows = torch.randint(len(profiles), (loop.batch_size,), generator=generator)
        crop = _random_crop(card.grid.shape, generator)
        turn = orientations[int(torch.randint(len(orientations), (), generator=generator))]
        scan, plain, maps = (turn.apply(part[rows][:, *crop]) for part in pairs)
        return [scan[:, None], plain[:, None], maps, profiles[rows]]

    loss = train_loop(
        DetailObjective(detail),
        draw,
        loop,
        folder=folder / "detail",
        seed=config.seed,
        description=f"{data.fold.name}: detail decoder",
    )
    save_artefact(
        folder / "detail", detail, card.model_copy(update={"facts": {"training_loss": loss}})
    )
    remove_training_state(folder / "detail")


def _random_crop(shape: Shape, generator: torch.Generator) -> tuple[slice, slice, slice]:
    """A box of up to ``CROP`` voxels an edge, on the grid of 4x4x4 blocks."""
    ends = []
    for n in shape:
        size = min(n, CROP)
        start = 4 * int(torch.randint((n - size) // 4 + 1, (), generator=generator))
        ends.append(slice(start, start + size))
    x, y, z = ends
    return (x, y, z)
