"""Training the clinical model: what the patient's table says without any scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from neonet3d.classification.clinical import clinical_table, fit_columns
from neonet3d.classification.logistic import LogisticModel
from neonet3d.classification.training_set import (
    PATIENTS,
    Draws,
    grouping,
    judged,
    log_odds,
    require_trainable,
)
from neonet3d.cohort.folds import Fold
from neonet3d.config import Config, fingerprint
from neonet3d.engine.artefact import new_card, save_artefact
from neonet3d.engine.claim import claim_folder


def train_clinical(fold: Fold, config: Config, folder: Path) -> None:
    """Fit a logistic regression on ``clinical.columns`` of the real training cases.

    Raises:
        InputError: no outcomes, fewer than two patients of a class, or columns that cannot be used.
    """
    training = fold.training.subset(case for case in fold.training if not case.synthetic)
    outcomes = require_trainable(Fold(fold.name, training, fold.held_out), allow_no_tumour=True)
    columns = fit_columns(training, config.clinical.columns)
    card = new_card(
        "ClinicalModel",
        fold=fold,
        config=config.clinical,
        seed=config.seed,
        normaliser=None,
        grid=None,
    )
    names = [name for column in columns for name in column.features]
    features = clinical_table(training, columns)
    patients = [case.participant for case in training]
    parts = {
        "features": names,
        "columns": [column.model_dump(mode="json") for column in columns],
        "table": fingerprint(features.tolist()),  # a value that is mended makes another model
        PATIENTS: grouping(patients),
    }
    card = card.model_copy(update={"parts": parts})
    if claim_folder(folder, card):
        return
    model = LogisticModel(len(names))
    synthetic = torch.zeros(len(training), dtype=torch.bool)
    weights = Draws.of(outcomes, synthetic, "balanced").weights()
    known = judged(synthetic).numpy()
    strength = model.fit(
        features, outcomes.numpy(), weights, np.array(patients), known, seed=config.seed
    )
    model.prior_logit.fill_(log_odds(outcomes, synthetic))
    facts = {"strength": strength, "weights": dict(zip(names, model.weight.tolist(), strict=True))}
    save_artefact(folder, model, card.model_copy(update={"facts": facts}))
