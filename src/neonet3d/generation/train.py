"""Training NeoGen: autoencoder, anatomy prior, flow U-Net, ControlNet, each an artefact of its own.

Each function is handed a fold and reads ``fold.training`` only. A folder that already holds the
model it would make is read instead; a half-trained one goes on from its last state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import (
    GRID_MULTIPLE,
    Patches,
    draw_shifts,
    fit_patches,
    load_patches,
    orientations_of,
)
from neonet3d.config import Config, LoopConfig, Section
from neonet3d.engine.artefact import ArtefactCard, claim_folder, new_card, save_artefact
from neonet3d.engine.device import SHORTEST_X, fabric
from neonet3d.engine.loop import DrawBatch, remove_training_state, seeded, train_loop
from neonet3d.engine.run import Timer, untimed
from neonet3d.errors import InputError
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.autoencoder import Autoencoder, AutoencoderObjective
from neonet3d.generation.controlnet import ControlNet
from neonet3d.generation.generator import (
    LatentGenerator,
    build_autoencoder,
    latent_shape,
    load_anatomy,
    load_autoencoder,
    load_unet,
)
from neonet3d.generation.objectives import ControlObjective, FlowObjective
from neonet3d.generation.unet import FlowUNet

ENCODE_BATCH = 16
VIEWS = 8  # encodings of each training case, in different positions
LARGEST_SHIFT = 2  # voxels
INTENSITY_JITTER = 0.05  # relative gain, one standard deviation, while the autoencoder trains


def train_generator(
    fold: Fold, config: Config, folder: Path, timed: Timer = untimed
) -> LatentGenerator:
    """NeoGen on the training cases of one fold.

    Writes ``autoencoder/``, ``anatomy/``, ``unet/`` and ``controlnet/`` below ``folder``.

    Raises:
        InputError: cases without masks, or a folder that holds something else.
    """
    without = [case.name for case in fold.training if case.mask_path is None]
    if without:
        raise InputError(
            f"{len(without)} training cases of {fold.training.root} have no mask (the first is "
            f"{without[0]}). The ControlNet needs one for each; run 'neonet3d segment predict'."
        )
    with timed("train autoencoder"):
        train_autoencoder(fold, config, folder / "autoencoder")
    latents = FoldLatents(fold, folder / "autoencoder")
    with timed("train flow U-Net"):
        _fit_anatomy(latents, config, folder)
        _train_unet(latents, config, folder)
    with timed("train ControlNet"):
        _train_controlnet(latents, config, folder)
    return LatentGenerator.load(folder)


def train_autoencoder(fold: Fold, config: Config, folder: Path) -> None:
    """The autoencoder, its latent statistics and its residual texture.

    All that a classifier on frozen features needs. The texture is measured on the training
    reconstructions.
    """
    grid, normaliser = fit_patches(fold.training, shortest=SHORTEST_X * GRID_MULTIPLE)
    card = new_card(
        "Autoencoder",
        fold=fold,
        config=config.autoencoder,
        seed=config.seed,
        normaliser=normaliser,
        grid=grid,
    )
    if claim_folder(folder, card):
        return
    patches = load_patches(fold.training, grid, normaliser)
    orientations = orientations_of(grid)
    model = seeded(config.seed, lambda: build_autoencoder(card))
    model.start_from_principal_components(patches.images[:, None])

    def draw(generator: torch.Generator) -> list[Tensor]:
        n = config.autoencoder.loop.batch_size
        index = torch.randint(len(patches), (n,), generator=generator)
        which = int(torch.randint(len(orientations), (1,), generator=generator))
        images = orientations[which].apply(patches.images[index])
        gain = 1 + INTENSITY_JITTER * torch.randn(n, 1, 1, 1, generator=generator)
        return [((images + 1) * gain - 1).clamp(-1, 1)[:, None]]

    loss = train_loop(
        AutoencoderObjective(model, config.autoencoder.kl_weight),
        draw,
        config.autoencoder.loop,
        folder=folder,
        seed=config.seed,
        description=f"{fold.name}: autoencoder",
    )
    model.fit_latent_statistics(_encode(model, patches.images))
    residuals = fabric().to_device(patches.images) - _reconstruct(model, patches.images)
    model.texture.fit(residuals)
    facts = {
        "latent_mean": model.encoder.latent_mean.tolist(),
        "latent_std": model.encoder.latent_std.tolist(),
        "latent_gain": model.encoder.latent_gain.tolist(),
        "training_loss": loss,
        "training_psnr_db": float(10 * torch.log10(4 / residuals.square().mean())),
    }
    save_artefact(folder, model, card.model_copy(update={"facts": facts}))
    remove_training_state(folder)


@dataclass(frozen=True)
class FoldLatents:
    """The training fold as latents; encoded when first asked for, since a finished part needs none.

    An encoder of 4x4x4 blocks is not equivariant to moves by single voxels, so augmentation comes
    before encoding; encoding once makes the training of the flow free of the autoencoder. There are
    no flips: a liver has a left and a right, and few steps are better spent on one orientation.
    """

    fold: Fold
    folder: Path

    @cached_property
    def model(self) -> tuple[Autoencoder, ArtefactCard]:
        return load_autoencoder(self.folder)

    @cached_property
    def encoded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, label maps and labels, each case in ``VIEWS`` positions, on the CPU."""
        autoencoder, card = self.model
        assert card.normaliser is not None  # train_autoencoder always sets it
        patches = load_patches(self.fold.training, card.grid, card.normaliser)
        shifts = draw_shifts(VIEWS, LARGEST_SHIFT, seed=card.seed)
        views: list[Patches] = [patches.moved(shift) for shift in shifts]
        latents = torch.cat([_standardised(autoencoder, view.images) for view in views])
        label_maps = torch.cat([view.required_label_maps() for view in views])
        return latents, label_maps, torch.cat([view.outcomes for view in views])


def _fit_anatomy(data: FoldLatents, config: Config, folder: Path) -> None:
    """The closed-form anatomy prior on the latents of ``folder/autoencoder``."""
    card = _child_card("AnatomyPrior", config.autoencoder, data, config, autoencoder=data.model[1])
    if claim_folder(folder / "anatomy", card):
        return
    latents, label_maps, _ = data.encoded
    prior = AnatomyPrior(len(card.classes), latents.shape[1], latent_shape(card))
    facts = {"explained_variance": prior.fit(latents, label_maps).tolist()}
    save_artefact(folder / "anatomy", prior, card.model_copy(update={"facts": facts}))


def _train_unet(data: FoldLatents, config: Config, folder: Path) -> None:
    """The flow U-Net on what the anatomy does not explain; it sees no label map."""
    autoencoder, parent = data.model
    anatomy, anatomy_card = load_anatomy(folder / "anatomy", parent)
    card = _child_card("FlowUNet", config.unet, data, config, anatomy=anatomy_card)
    if claim_folder(folder / "unet", card):
        return
    latents, label_maps, labels = data.encoded
    residuals = _residuals(anatomy, latents, label_maps)
    shape = latent_shape(card)
    unet = seeded(config.seed, lambda: FlowUNet(residuals.shape[1], shape, config.unet))
    unet.gaussian.fit(residuals)
    _fit(
        FlowObjective(unet, autoencoder.encoder.latent_gain, config.unet.null_label_fraction),
        unet,
        _draw_from([residuals, labels], config.unet.loop),
        config.unet.loop,
        folder=folder / "unet",
        card=card,
        description=f"{data.fold.name}: flow U-Net",
    )


def _train_controlnet(data: FoldLatents, config: Config, folder: Path) -> None:
    """The ControlNet on the frozen U-Net of ``folder/unet``."""
    autoencoder, parent = data.model
    anatomy, anatomy_card = load_anatomy(folder / "anatomy", parent)
    unet, unet_card = load_unet(folder / "unet", parent, anatomy_card)
    card = _child_card("ControlNet", config.controlnet, data, config, unet=unet_card)
    if claim_folder(folder / "controlnet", card):
        return
    latents, label_maps, labels = data.encoded
    residuals = _residuals(anatomy, latents, label_maps)
    schema = data.fold.training.schema
    controlnet = seeded(config.seed, lambda: ControlNet(unet, len(schema)))
    objective = ControlObjective(
        unet,
        controlnet,
        autoencoder.encoder.latent_gain,
        schema,
        config.controlnet.foreground_weight,
        config.unet.null_label_fraction,
    )
    _fit(
        objective,
        controlnet,
        _draw_from([residuals, labels, label_maps], config.controlnet.loop),
        config.controlnet.loop,
        folder=folder / "controlnet",
        card=card,
        description=f"{data.fold.name}: ControlNet",
    )


def _child_card(
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


@torch.no_grad()
def _residuals(anatomy: AnatomyPrior, latents: Tensor, label_maps: Tensor) -> Tensor:
    here = fabric()
    parts = zip(latents.split(ENCODE_BATCH), label_maps.split(ENCODE_BATCH), strict=True)
    return torch.cat(
        [anatomy.residual(here.to_device(z), here.to_device(maps)).cpu() for z, maps in parts]
    )


def _fit(
    objective: nn.Module,
    model: nn.Module,
    draw: DrawBatch,
    loop: LoopConfig,
    *,
    folder: Path,
    card: ArtefactCard,
    description: str,
) -> None:
    loss = train_loop(objective, draw, loop, folder=folder, seed=card.seed, description=description)
    save_artefact(folder, model, card.model_copy(update={"facts": {"training_loss": loss}}))
    remove_training_state(folder)


def _draw_from(data: list[Tensor], loop: LoopConfig) -> DrawBatch:
    def draw(generator: torch.Generator) -> list[Tensor]:
        index = torch.randint(len(data[0]), (loop.batch_size,), generator=generator)
        return [part[index] for part in data]

    return draw


def _encode(model: Autoencoder, images: Tensor) -> Tensor:
    """Posterior means (not standardised), on the device."""
    here = fabric()
    with torch.no_grad(), here.autocast():
        parts = [
            model.encoder.posterior(here.to_device(p)[:, None])[0]
            for p in images.split(ENCODE_BATCH)
        ]
    return torch.cat(parts)


def _standardised(model: Autoencoder, images: Tensor) -> Tensor:
    here = fabric()
    with torch.no_grad(), here.autocast():
        parts = [
            model.encoder(here.to_device(p)[:, None]).cpu() for p in images.split(ENCODE_BATCH)
        ]
    return torch.cat(parts)


def _reconstruct(model: Autoencoder, images: Tensor) -> Tensor:
    here = fabric()
    with torch.no_grad(), here.autocast():
        parts = [
            model.decode(model.encoder(here.to_device(p)[:, None]))[:, 0].float()
            for p in images.split(ENCODE_BATCH)
        ]
    return torch.cat(parts)
