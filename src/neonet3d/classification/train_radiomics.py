"""Training the radiomics model on the patches of one fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neonet3d.classification.logistic import LogisticModel
from neonet3d.classification.radiomics.patient import feature_names, radiomics_table
from neonet3d.classification.training_set import (
    PATIENTS,
    Draws,
    grouping,
    judged,
    log_odds,
    require_trainable,
    training_patches,
)
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import PatchReading
from neonet3d.config import Config
from neonet3d.engine.artefact import new_card, save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.generation.sources import patients_of


def train_radiomics(
    fold: Fold,
    reading: PatchReading,
    config: Config,
    folder: Path,
    *,
    allow_no_tumour: bool = False,
) -> None:
    """Fit the radiomics model on the same patches as PattenNet.

    Args:
        reading: of the patches, as that of the encoder of the same fold.

    Raises:
        InputError: no outcomes, fewer than two patients of a class, cases without masks, or a case
            without a tumour.
    """
    outcomes = require_trainable(fold, allow_no_tumour=allow_no_tumour)
    card = new_card(
        "RadiomicsModel",
        fold=fold,
        config=config.radiomics,
        seed=config.seed,
        normaliser=reading.normaliser,
        grid=reading.grid,
    )
    names = feature_names(card.schema_, config.radiomics)
    patients = patients_of(fold.training)
    parts = {"features": list(names), PATIENTS: grouping(patients)}
    card = card.model_copy(update={"parts": parts})
    if claim_folder(folder, card):
        return
    patches = training_patches(fold, card)
    features = radiomics_table(patches, card.schema_, config.radiomics)
    model = LogisticModel(len(names))
    draws = Draws.of(outcomes, patches.synthetic, config.radiomics.drawing)
    known = judged(patches.synthetic).numpy()
    strength = model.fit(
        features, outcomes.numpy(), draws.weights(), np.array(patients), known, seed=config.seed
    )
    model.bias.sub_(draws.log_odds)
    model.prior_logit.fill_(log_odds(outcomes, patches.synthetic))
    save_artefact(folder, model, card.model_copy(update={"facts": {"strength": strength}}))
