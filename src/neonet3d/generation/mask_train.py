"""Training the generator of label maps: its autoencoder, then its flow, each an artefact.

Both read ``fold.training`` only. A folder that already holds the model is read instead; a
half-trained one goes on from its last state.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from neonet3d.cohort.folds import Fold
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.patches import (
    GRID_MULTIPLE,
    NO_OUTCOME,
    Shift,
    choose_grid,
    draw_shifts,
    load_label_maps,
    orientations_of,
    random_crop,
)
from neonet3d.config import Config
from neonet3d.engine.artefact import new_card, save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.engine.device import SHORTEST_X, channels_last, fabric
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.generation.autoencoder import DOWNSAMPLING
from neonet3d.generation.latents import ENCODE_BATCH, LARGEST_SHIFT, n_views
from neonet3d.generation.mask_autoencoder import MaskAutoencoder, MaskObjective, class_weights
from neonet3d.generation.mask_generator import MaskFlow, MaskGenerator, load_mask_autoencoder
from neonet3d.generation.mask_statistics import MaskConditions
from neonet3d.generation.objectives import FlowObjective

CROP = 24  # voxels of an edge


def train_mask_generator(fold: Fold, config: Config, folder: Path) -> MaskGenerator:
    """The generator of label maps on the training masks of one fold.

    Writes ``autoencoder/`` and ``flow/`` below ``folder``.

    Raises:
        InputError: cases without masks, or a folder that holds something else.
    """
    data = _FoldMasks(fold)
    _train_autoencoder(data, config, folder / "autoencoder")
    _train_flow(data, config, folder)
    return MaskGenerator.load(folder)


class _FoldMasks:
    """The training masks of a fold on its grid, in memory, in the order of the card's cases."""

    def __init__(self, fold: Fold) -> None:
        for case in fold.training:
            case.require_mask()
        in_order = sorted(fold.training, key=lambda case: case.digest())
        fold = replace(fold, training=replace(fold.training, cases=tuple(in_order)))
        self.fold = fold
        masks = (case.read_mask() for case in fold.training)
        grid = choose_grid([mask for mask in masks if mask is not None])
        shortest = max(SHORTEST_X * GRID_MULTIPLE, grid.shape[0])
        self.grid: Grid = replace(grid, shape=(shortest, *grid.shape[1:]))
        self.maps, self.log_scale = load_label_maps(fold.training, self.grid)
        outcomes = [NO_OUTCOME if c.outcome is None else c.outcome for c in fold.training]
        self.outcomes = torch.tensor(outcomes)


def _train_autoencoder(data: _FoldMasks, config: Config, folder: Path) -> None:
    """In all orientations that the grid allows: what is learnt are shapes, not where they lie.

    On crops, for the same reason: thin veins want many steps, and those of crops are short.
    """
    settings = config.masks.autoencoder
    card = new_card(
        "MaskAutoencoder",
        fold=data.fold,
        config=settings,
        seed=config.seed,
        normaliser=None,
        grid=data.grid,
    )
    if claim_folder(folder, card):
        return
    orientations = orientations_of(data.grid)
    n_classes = len(card.classes)
    model = channels_last(seeded(config.seed, lambda: MaskAutoencoder(settings, n_classes)))

    def draw(generator: torch.Generator) -> list[Tensor]:
        index = torch.randint(len(data.maps), (settings.loop.batch_size,), generator=generator)
        which = int(torch.randint(len(orientations), (1,), generator=generator))
        x, y, z = torch.randint(
            -LARGEST_SHIFT, LARGEST_SHIFT + 1, (3,), generator=generator
        ).tolist()
        shifted = Shift((x, y, z)).apply(data.maps[index])
        crop = random_crop(data.grid.shape, CROP, DOWNSAMPLING, generator)
        return [orientations[which].apply(shifted[:, *crop])]

    loss = train_loop(
        MaskObjective(model, settings.kl_weight, class_weights(data.maps, n_classes)),
        draw,
        settings.loop,
        folder=folder,
        seed=config.seed,
        description=f"{data.fold.name}: mask autoencoder",
    )
    with torch.no_grad(), fabric().autocast():
        parts = [
            model.posterior(fabric().to_device(maps))[0] for maps in data.maps.split(ENCODE_BATCH)
        ]
    model.fit_latent_statistics(torch.cat(parts))
    facts = {"training_loss": loss, "training_dice": _training_dice(model, data.maps, card.classes)}
    save_artefact(folder, model, card.model_copy(update={"facts": facts}))
    remove_training_state(folder)


def _train_flow(data: _FoldMasks, config: Config, folder: Path) -> None:
    """On the standardised latents of the maps in ``n_views`` positions; no flips, as for images."""
    autoencoder, parent = load_mask_autoencoder(folder / "autoencoder")
    loop = config.masks.flow.loop
    card = new_card(
        "MaskFlow",
        fold=data.fold,
        config=config.masks.networks,
        seed=config.seed,
        normaliser=None,
        grid=data.grid,
        parents={"autoencoder": parent},
    )
    if claim_folder(folder / "flow", card):
        return
    model = channels_last(seeded(config.seed, lambda: MaskFlow(card)))
    schema, spacing_mm = card.schema_, data.grid.spacing_mm
    model.statistics.fit(data.maps, data.outcomes, data.log_scale, schema, spacing_mm)
    views = n_views(len(data.outcomes))
    shifts = draw_shifts(views, LARGEST_SHIFT, seed=config.seed)
    latents = torch.cat([_encoded(autoencoder, shift.apply(data.maps)) for shift in shifts])
    volumes_mm3 = model.statistics.volumes_mm3
    told = MaskConditions(
        data.outcomes, volumes_mm3, data.log_scale, torch.arange(len(volumes_mm3))
    )
    numbers = model.statistics.numbers(told).repeat(views, 1)
    outcomes = data.outcomes.repeat(views)
    model.place_mean.copy_(latents.mean(0))
    latents = latents - model.place_mean
    model.unet.gaussian.fit(latents)

    def draw(generator: torch.Generator) -> list[Tensor]:
        index = torch.randint(len(latents), (loop.batch_size,), generator=generator)
        return [latents[index], outcomes[index], numbers[index]]

    alike = torch.ones(latents.shape[1])
    loss = train_loop(
        FlowObjective(model.unet, alike, config.masks.flow.null_label_fraction),
        draw,
        loop,
        folder=folder / "flow",
        seed=config.seed,
        description=f"{data.fold.name}: mask flow",
    )
    save_artefact(
        folder / "flow", model, card.model_copy(update={"facts": {"training_loss": loss}})
    )
    remove_training_state(folder / "flow")


@torch.no_grad()
def _encoded(model: MaskAutoencoder, maps: Tensor) -> Tensor:
    here = fabric()
    with here.autocast():
        parts = [model.encode(here.to_device(part)).cpu() for part in maps.split(ENCODE_BATCH)]
    return torch.cat(parts)


@torch.no_grad()
def _training_dice(
    model: MaskAutoencoder, maps: Tensor, classes: tuple[str, ...]
) -> dict[str, float]:
    """Of reconstructed training maps, each class over all of them."""
    here, shared, total = fabric(), torch.zeros(len(classes)), torch.zeros(len(classes))
    for part in maps.split(ENCODE_BATCH):
        with here.autocast():
            returned = model.decode(model.encode(here.to_device(part))).argmax(1).cpu()
        for k in range(len(classes)):
            shared[k] += ((returned == k) & (part == k)).sum()
            total[k] += (returned == k).sum() + (part == k).sum()
    dice = 2 * shared / total.clamp_min(1)
    return {name: float(dice[k]) for k, name in enumerate(classes) if k > 0}
