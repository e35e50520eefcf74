"""Training NeoGen: autoencoder, anatomy, U-Net, ControlNet, refiner, detail, calibration.

Each is an artefact. Each function is handed a fold and reads ``fold.training`` only. A folder that
already holds the model it would make is read instead; a half-trained one goes on from its last
state.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import (
    GRID_MULTIPLE,
    PatchReading,
    fit_patches,
    load_patches,
    orientations_of,
)
from neonet3d.config import Config, LoopConfig
from neonet3d.engine.artefact import ArtefactCard, new_card, save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.engine.device import SHORTEST_X, channels_last, fabric
from neonet3d.engine.loop import DrawBatch, remove_training_state, seeded, train_loop
from neonet3d.engine.run import Timer, untimed
from neonet3d.errors import InputError
from neonet3d.generation.autoencoder import AutoencoderObjective
from neonet3d.generation.condition import N_SCALES
from neonet3d.generation.controlnet import ControlNet, class_fractions
from neonet3d.generation.fit_calibration import fit_calibration
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.latent_flow import (
    build_anatomy,
    build_autoencoder,
    latent_shape,
    load_anatomy,
    load_unet,
)
from neonet3d.generation.latents import (
    ENCODE_BATCH,
    FoldLatents,
    anatomy_residuals,
    child_card,
    n_views,
    reconstructions,
    rows_of_views,
    standardised_latents,
)
from neonet3d.generation.objectives import ControlObjective, FlowObjective
from neonet3d.generation.train_detail import train_detail
from neonet3d.generation.train_refiner import fit_refiner
from neonet3d.generation.unet import FlowUNet

MEAN_PATCHES = 256  # as many, evenly taken, are plenty for a few hundred coefficients
FACTOR_PATCHES = 1024  # of few positions of each case, the factors learn the cases by heart
INTENSITY_JITTER = 0.05  # relative gain, one standard deviation, while the autoencoder trains


def train_generator(
    fold: Fold, config: Config, folder: Path, timed: Timer = untimed
) -> LatentGenerator:
    """NeoGen on the training cases of one fold.

    Writes ``autoencoder/``, ``anatomy/``, ``unet/``, ``controlnet/``, ``refiner/``, ``detail/`` and
    ``calibration/`` below ``folder``.

    Raises:
        InputError: cases without masks, guidance without outcomes, or a folder that holds something
            else.
    """
    require_masks(fold)
    if config.sampler.guidance != 1 and fold.training.outcome_name is None:
        raise InputError(
            "sampler.guidance is of the outcome, and the cohort has none. Leave it at 1, or name "
            "the outcome column in dataset.json."
        )
    with timed("train autoencoder"):
        train_autoencoder(fold, config, folder / "autoencoder")
    latents = FoldLatents(fold, folder / "autoencoder")
    with timed("train flow U-Net"):
        fit_anatomy(latents, config, folder)
        _train_unet(latents, config, folder)
    with timed("train ControlNet"):
        _train_controlnet(latents, config, folder)
    with timed("fit refiner"):
        fit_refiner(latents, config, folder)
    with timed("train detail decoder"):
        train_detail(latents, config, folder)
    with timed("fit calibration"):
        fit_calibration(latents, config, folder)
    return LatentGenerator.load(folder)


def require_masks(fold: Fold) -> None:
    """The ControlNet learns from label maps.

    Raises:
        InputError: training cases without masks.
    """
    without = [case.name for case in fold.training if case.mask_path is None]
    if without:
        raise InputError(
            f"{len(without)} training cases of {fold.training.root} have no mask (the first is "
            f"{without[0]}). The ControlNet needs one for each; run 'neonet3d segment predict'."
        )


def fit_reading(fold: Fold) -> PatchReading:
    """Grid and intensities of the training patches, as every model of a fold reads them."""
    return fit_patches(fold.training, shortest=SHORTEST_X * GRID_MULTIPLE)


def train_autoencoder(fold: Fold, config: Config, folder: Path) -> None:
    """The autoencoder and its latent statistics.

    All that a classifier on frozen features needs.
    """
    grid, normaliser = fit_reading(fold)
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
    model = channels_last(seeded(config.seed, lambda: build_autoencoder(card)))
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
    means = standardised_latents(model, patches.images)
    model.fit_latent_statistics(fabric().to_device(means))
    images, returned = fabric().to_device(patches.images), reconstructions(model, patches.images)
    facts = {
        "latent_mean": model.encoder.latent_mean.tolist(),
        "latent_std": model.encoder.latent_std.tolist(),
        "latent_gain": model.encoder.latent_gain.tolist(),
        "training_loss": loss,
        "training_psnr_db": float(10 * torch.log10(4 / (images - returned).square().mean())),
    }
    save_artefact(folder, model, card.model_copy(update={"facts": facts}))
    remove_training_state(folder)


def fit_anatomy(data: FoldLatents, config: Config, folder: Path) -> None:
    """The closed-form anatomy prior on the latents of ``folder/autoencoder``."""
    card = child_card("AnatomyPrior", config.autoencoder, data, config, autoencoder=data.model[1])
    if claim_folder(folder / "anatomy", card):
        return
    latents, label_maps, outcomes, _ = data.encoded
    n = len(data.patches)
    prior = build_anatomy(card, data.model[1])
    few, many = (rows_of_views(n, n_views(n), most) for most in (MEAN_PATCHES, FACTOR_PATCHES))
    facts = {"explained_variance": prior.fit(latents[few], label_maps[few]).tolist()}
    prior.fit_factors(latents[many], label_maps[many], many % n)
    prior.fill_bank(latents[:n], label_maps[:n], outcomes[:n])
    save_artefact(folder / "anatomy", prior, card.model_copy(update={"facts": facts}))


def _train_unet(data: FoldLatents, config: Config, folder: Path) -> None:
    """The flow U-Net on what the anatomy does not explain."""
    autoencoder, parent = data.model
    anatomy, anatomy_card = load_anatomy(folder / "anatomy", parent)
    card = child_card("FlowUNet", config.unet, data, config, anatomy=anatomy_card)
    if claim_folder(folder / "unet", card):
        return
    latents, label_maps, outcomes, scales = data.encoded
    residuals = anatomy_residuals(anatomy, latents, label_maps)
    shape = latent_shape(card)
    fractions = torch.cat(
        [class_fractions(part, len(card.classes)) for part in label_maps.split(ENCODE_BATCH)]
    )
    unet = seeded(
        config.seed,
        lambda: FlowUNet(residuals.shape[1], shape, config.unet, N_SCALES, len(card.classes) - 1),
    )
    unet.gaussian.fit(residuals)
    _fit(
        FlowObjective(
            channels_last(unet), autoencoder.encoder.latent_gain, config.unet.null_label_fraction
        ),
        unet,
        _draw_from([residuals, outcomes, scales, fractions], config.unet.loop),
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
    card = child_card("ControlNet", config.controlnet, data, config, unet=unet_card)
    if claim_folder(folder / "controlnet", card):
        return
    latents, label_maps, outcomes, scales = data.encoded
    residuals = anatomy_residuals(anatomy, latents, label_maps)
    schema = data.fold.training.schema
    controlnet = seeded(
        config.seed, lambda: ControlNet(unet, len(schema), config.controlnet.guidance)
    )
    objective = ControlObjective(
        channels_last(unet),
        channels_last(controlnet),
        autoencoder.encoder.latent_gain,
        schema,
        config.controlnet.foreground_weight,
        config.unet.null_label_fraction,
    )
    _fit(
        objective,
        controlnet,
        _draw_from([residuals, outcomes, scales, label_maps], config.controlnet.loop),
        config.controlnet.loop,
        folder=folder / "controlnet",
        card=card,
        description=f"{data.fold.name}: ControlNet",
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
