"""Training the detail decoder: patches beside their refined reconstructions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from neonet3d.cohort.patches import orientations_of, random_crop
from neonet3d.config import Config
from neonet3d.engine.artefact import save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.engine.device import channels_last, fabric
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.generation.autoencoder import DOWNSAMPLING
from neonet3d.generation.detail import DetailDecoder
from neonet3d.generation.generator import build_detail
from neonet3d.generation.latents import (
    ENCODE_BATCH,
    FoldLatents,
    child_card,
    n_views,
    reconstructions,
    rows_of_views,
)
from neonet3d.generation.objectives import DetailObjective
from neonet3d.types import LabelBatch

PAIRS = 512  # patches, evenly taken over the positions, are plenty for a texture
CROP = 32  # voxels of an edge; texture is local, and small crops are many


def train_detail(data: FoldLatents, config: Config, folder: Path) -> None:
    """The detail decoder beside the autoencoder of ``folder``."""
    autoencoder, parent = data.model
    card = child_card("DetailDecoder", config.detail, data, config, autoencoder=parent)
    if claim_folder(folder / "detail", card):
        return
    detail = channels_last(seeded(config.seed, lambda: build_detail(card)))
    n = len(data.patches)
    chosen, views = rows_of_views(n, n_views(n), PAIRS), []
    for number, view in enumerate(data.views()):
        rows = chosen[chosen // n == number] % n
        if len(rows) == 0:
            continue
        decoded = reconstructions(autoencoder, view.images[rows]).cpu()
        views.append((view.images[rows], decoded, view.required_label_maps()[rows]))
    scans, decoded, label_maps = (torch.cat(part) for part in zip(*views, strict=True))
    _fit_refiner(detail, scans, decoded, label_maps)
    refined, maps = _refined(detail, decoded, label_maps), data.patches.required_label_maps()
    images = data.patches.images
    detail.fit_texture(
        images, _refined(detail, reconstructions(autoencoder, images).cpu(), maps), maps
    )
    pairs = (scans, refined, label_maps)
    profiles = detail.profiles[chosen % n]
    orientations, loop = orientations_of(card.grid), config.detail.loop

    def draw(generator: torch.Generator) -> list[Tensor]:
        rows = torch.randint(len(profiles), (loop.batch_size,), generator=generator)
        crop = random_crop(card.grid.shape, CROP, DOWNSAMPLING, generator)
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


@torch.no_grad()
def _fit_refiner(
    detail: DetailDecoder, scans: Tensor, decoded: Tensor, label_maps: LabelBatch
) -> None:
    regression, here = detail.refiner.regression(), fabric()
    fabric().to_device(detail.refiner)
    for scan, plain, maps in zip(
        *(part.split(ENCODE_BATCH) for part in (scans, decoded, label_maps)), strict=True
    ):
        plain, maps, scan = (here.to_device(x) for x in (plain[:, None], maps, scan[:, None]))
        detail.refiner.show(regression, plain, maps, scan)
    detail.refiner.weight.copy_(regression.solve())


@torch.no_grad()
def _refined(detail: DetailDecoder, decoded: Tensor, label_maps: LabelBatch) -> Tensor:
    """The reconstructions (n, x, y, z) refined, on the CPU."""
    here, found = fabric(), []
    for plain, maps in zip(
        decoded.split(ENCODE_BATCH), label_maps.split(ENCODE_BATCH), strict=True
    ):
        with here.autocast():
            refined = detail.refiner(here.to_device(plain)[:, None], here.to_device(maps))
        found.append(refined[:, 0].cpu())
    return torch.cat(found)
