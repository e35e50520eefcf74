"""Training the detail decoder: patches beside their reconstructions and their redrawings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from neonet3d.cohort.patches import orientations_of
from neonet3d.config import Config
from neonet3d.engine.artefact import claim_folder, save_artefact
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.engine.progress import progress
from neonet3d.generation.generator import build_detail
from neonet3d.generation.latent_flow import LatentFlow
from neonet3d.generation.latents import (
    ENCODE_BATCH,
    VIEWS,
    FoldLatents,
    anatomy_residuals,
    child_card,
    reconstructions,
)
from neonet3d.generation.objectives import DetailObjective
from neonet3d.types import Shape

PAIRS = 512  # patches, evenly taken over the positions, are plenty for a texture
LARGEST_START = 0.5  # how far a patch is noised at most before the flow draws it again
REDRAWN = 0.25  # share of a batch that is; the rest are reconstructions
CROP = 32  # voxels of an edge; texture is local, and small crops are many


@dataclass(frozen=True)
class DetailPairs:
    """Rows of training patches.

    Attributes:
        scans, label_maps: (n, x, y, z).
        decoded: (2, n, x, y, z): reconstructions and redrawings.
    """

    scans: Tensor
    decoded: Tensor
    label_maps: Tensor


def train_detail(data: FoldLatents, config: Config, folder: Path) -> None:
    """The detail decoder on what the flow of ``folder`` draws."""
    flow = LatentFlow.load(folder)
    card = child_card("DetailDecoder", config.detail, data, config, controlnet=flow.card)
    if claim_folder(folder / "detail", card):
        return
    detail = seeded(config.seed, lambda: build_detail(card))
    patches = data.patches
    detail.fit_texture(
        patches.images,
        reconstructions(flow.autoencoder, patches.images).cpu(),
        patches.required_label_maps(),
    )
    pairs = _draw_pairs(data, flow, config)
    profiles = detail.profiles.repeat(VIEWS, 1)[_rows(data)]
    orientations, loop = orientations_of(card.grid), config.detail.loop

    def draw(generator: torch.Generator) -> list[Tensor]:
        n = loop.batch_size
        rows = torch.randint(len(pairs.scans), (n,), generator=generator)
        redrawn = (torch.rand(n, generator=generator) < REDRAWN).long()
        crop = _random_crop(card.grid.shape, generator)
        turn = orientations[int(torch.randint(len(orientations), (), generator=generator))]
        scan, decoded, maps = (
            turn.apply(x[:, *crop])
            for x in (pairs.scans[rows], pairs.decoded[redrawn, rows], pairs.label_maps[rows])
        )
        return [scan[:, None], decoded[:, None], maps, profiles[rows]]

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


def _rows(data: FoldLatents) -> Tensor:
    """Which rows of ``FoldLatents.encoded`` are used, in order."""
    n = VIEWS * len(data.patches)
    return torch.arange(n)[:: -(-n // PAIRS)]


def _draw_pairs(data: FoldLatents, flow: LatentFlow, config: Config) -> DetailPairs:
    latents, label_maps, outcomes, scales = data.encoded
    rng, n = torch.Generator().manual_seed(config.seed), len(data.patches)
    chosen = _rows(data)
    scans, plain, redrawn = [], [], []
    with progress(f"{data.fold.name}: pairs for the detail", VIEWS) as advance:
        for number, view in enumerate(data.views()):
            rows = chosen[(chosen >= number * n) & (chosen < (number + 1) * n)]
            for part in rows.split(ENCODE_BATCH):
                images, maps = view.images[part - number * n], label_maps[part]
                start = LARGEST_START * float(torch.rand((), generator=rng))
                again = flow.redraw(
                    anatomy_residuals(flow.anatomy, latents[part], maps),
                    maps,
                    outcomes[part],
                    scales[part],
                    start=start,
                    steps=config.sampler.steps,
                    generator=rng,
                )
                scans.append(images)
                plain.append(reconstructions(flow.autoencoder, images).cpu())
                redrawn.append(again[:, 0].cpu())
            advance()
    decoded = torch.stack([torch.cat(plain), torch.cat(redrawn)])
    return DetailPairs(torch.cat(scans), decoded, label_maps[chosen])


def _random_crop(shape: Shape, generator: torch.Generator) -> tuple[slice, slice, slice]:
    """A box of up to ``CROP`` voxels an edge, on the grid of 4x4x4 blocks."""
    ends = []
    for n in shape:
        size = min(n, CROP)
        start = 4 * int(torch.randint((n - size) // 4 + 1, (), generator=generator))
        ends.append(slice(start, start + size))
    x, y, z = ends
    return (x, y, z)
