"""Training a baseline network on the patches of one fold."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from neonet3d.classification.baseline import VolumeClassifier
from neonet3d.classification.networks import TITLES
from neonet3d.classification.objective import LogitObjective
from neonet3d.classification.training_set import (
    MASKS,
    Draws,
    has_masks,
    loaded_start,
    log_odds,
    require_trainable,
    training_patches,
    with_start,
)
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import Patches, PatchReading, orientations_of
from neonet3d.config import BaselineConfig, Config
from neonet3d.engine.artefact import ArtefactCard, new_card, save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.engine.loop import remove_training_state, seeded, train_loop


def train_baseline(
    fold: Fold,
    reading: PatchReading,
    config: Config,
    folder: Path,
    *,
    start: Path | None = None,
    allow_no_tumour: bool = False,
) -> None:
    """Fit a network of ``networks.py`` on the same patches, end to end.

    Args:
        reading: of the patches, as that of the encoder of the same fold.
        start: a model of the same network and patches to go on from, as one of synthetic cases.

    Raises:
        InputError: no outcomes, one class only, a case without a tumour, or another kind of start.
    """
    outcomes = require_trainable(fold, allow_no_tumour=allow_no_tumour)
    card = new_card(
        "VolumeClassifier",
        fold=fold,
        config=config.baseline,
        seed=config.seed,
        normaliser=reading.normaliser,
        grid=reading.grid,
    )
    card = with_start(card.model_copy(update={"parts": {MASKS: has_masks(fold)}}), start, fold)
    if claim_folder(folder, card):
        return
    patches = training_patches(fold, card)
    maps = label_maps_given(card, patches)
    orientations = orientations_of(card.grid)
    network = seeded(config.seed, lambda: build_baseline(card))
    if start is not None:
        network.load_state_dict(loaded_start(start, card, build_baseline).state_dict())
    network.prior_logit.fill_(log_odds(outcomes, patches.synthetic))
    draws = Draws.of(outcomes, patches.synthetic, config.baseline.drawing)

    def draw(generator: torch.Generator) -> list[Tensor]:
        n = config.baseline.loop.batch_size
        index = draws.rows(n, generator)
        turn = orientations[int(torch.randint(len(orientations), (), generator=generator))]
        images = turn.apply(patches.images[index])
        return [images[:, None], turn.apply(maps[index]), outcomes[index], draws.importance[index]]

    loss = train_loop(
        LogitObjective(network, draws.log_odds),
        draw,
        config.baseline.loop,
        folder=folder,
        seed=config.seed,
        description=f"{fold.name}: {TITLES[config.baseline.network]}",
    )
    save_artefact(folder, network, card.model_copy(update={"facts": {"training_loss": loss}}))
    remove_training_state(folder)


def build_baseline(card: ArtefactCard) -> VolumeClassifier:
    """An untrained network of this card's settings, classes and grid."""
    settings = card.settings(BaselineConfig)
    return VolumeClassifier(settings.network, len(card.classes), card.grid.shape, settings.width)


def label_maps_given(card: ArtefactCard, patches: Patches) -> UInt8[Tensor, "n x y z"]:
    """What a network of this card is given as masks: background alone if it was trained so.

    Raises:
        InputError: a case without a mask, and the network was trained on masks.
    """
    if card.parts[MASKS]:
        return patches.required_label_maps()
    return torch.zeros(patches.images.shape, dtype=torch.uint8)
