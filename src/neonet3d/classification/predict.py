"""Applying a trained classifier to cases it has not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neonet3d.classification.baseline import VolumeClassifier
from neonet3d.classification.features import FrozenFeatures, encode_patches, encodings_of
from neonet3d.classification.radiomics.model import RadiomicsModel
from neonet3d.classification.radiomics.patient import radiomics_table
from neonet3d.classification.train import (
    PattenClassifier,
    build_encoder,
    build_ensemble,
    build_prior,
)
from neonet3d.classification.train_baseline import build_baseline
from neonet3d.classification.tumourless import refuse_without_tumour
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import Patches, load_patches, orientations_of
from neonet3d.config import ClassifierConfig, RadiomicsConfig
from neonet3d.engine.artefact import ArtefactCard, load_weights, read_card
from neonet3d.engine.device import fabric
from neonet3d.errors import InputError

PREDICT_BATCH = 32
Model = PattenClassifier | VolumeClassifier | RadiomicsModel


class Classifier:
    """A trained PattenNet, baseline network or radiomics model.

    Example:
        >>> classifier = Classifier.load("model")          # doctest: +SKIP
        >>> probability = classifier.predict(cohort)       # doctest: +SKIP
    """

    def __init__(self, model: Model, card: ArtefactCard) -> None:
        self.model = model
        self.card = card

    @classmethod
    def load(cls, folder: Path | str) -> Classifier:
        folder = Path(folder)
        card = read_card(folder)
        model: Model
        match card.kind:
            case "PattenNet":
                model = PattenClassifier(
                    build_encoder(card), build_prior(card), build_ensemble(card)
                )
            case "VolumeClassifier":
                model = build_baseline(card)
            case "RadiomicsModel":
                model = RadiomicsModel(len(card.parts["features"]))
            case _:
                raise InputError(f"{folder} holds a {card.kind}, not a classifier.")
        load_weights(folder, model, card)
        fabric().to_device(model)
        return cls(model.eval(), card)

    @property
    def prevalence(self) -> float:
        """Share of the outcome among the real training cases: what is known of an unseen case."""
        model = self.model
        network = model.network if isinstance(model, PattenClassifier) else model
        return float(torch.sigmoid(network.prior_logit))

    @torch.inference_mode()
    def predict(self, cohort: Cohort, *, allow_no_tumour: bool = False) -> Float[np.ndarray, " n"]:
        """Probability of the outcome for each case, averaged over orientations.

        Args:
            cohort: patches on the classifier's field of view (crop whole scans first).
            allow_no_tumour: predict even where there is no tumour, so that the patch shows the
                middle of the liver.

        Raises:
            InputError: other classes, whole scans, a case without a tumour, or without a mask where
                the classifier was trained on masks.
        """
        self.card.refuse_other_classes(cohort.schema)
        assert self.card.normaliser is not None  # every classifier records one
        patches = load_patches(cohort, self.card.grid, self.card.normaliser)
        if not allow_no_tumour:
            refuse_without_tumour(cohort)
        match self.model:
            case PattenClassifier():
                return self._predict_patten(self.model, patches).numpy()
            case VolumeClassifier():
                return self._predict_baseline(self.model, patches).numpy()
            case RadiomicsModel():
                return self._predict_radiomics(self.model, patches).numpy()

    def _predict_patten(self, model: PattenClassifier, patches: Patches) -> Float[Tensor, " n"]:
        encodings = self.card.settings(ClassifierConfig).encodings
        logits = patten_logits(model, patten_features(model, self.card, patches, encodings))
        return model.network.probability(logits.to(model.network.prior_logit.device)).cpu()

    def _predict_baseline(self, model: VolumeClassifier, patches: Patches) -> Float[Tensor, " n"]:
        here = fabric()
        maps = patches.label_maps
        if maps is None:
            maps = torch.zeros(patches.images.shape, dtype=torch.uint8)
        orientations = orientations_of(self.card.grid)
        logits = torch.zeros(len(patches))
        for part in torch.arange(len(patches)).split(PREDICT_BATCH):
            for turn in orientations:
                with here.autocast():
                    logit = model(
                        here.to_device(turn.apply(patches.images[part]))[:, None],
                        here.to_device(turn.apply(maps[part])),
                    )
                logits[part] += logit.cpu() / len(orientations)
        return model.probability(logits.to(model.prior_logit.device)).cpu()

    def _predict_radiomics(self, model: RadiomicsModel, patches: Patches) -> Float[Tensor, " n"]:
        settings = self.card.settings(RadiomicsConfig)
        features = radiomics_table(patches, self.card.schema_, settings)
        here = fabric()
        return model.probability(model(here.to_device(torch.from_numpy(features)))).float().cpu()


def patten_features(
    model: PattenClassifier, card: ArtefactCard, patches: Patches, n_encodings: int
) -> FrozenFeatures:
    """What PattenNet reads of patches on its grid, in so many orientations, the patch's own first.

    Raises:
        InputError: a case without a mask where the classifier was trained on masks.
    """
    if card.parts["regions"] == ["whole"]:  # trained without masks: none are looked at
        patches = replace(patches, label_maps=None)
    else:
        patches.required_label_maps()
    orientations = encodings_of(card.grid, n_encodings, seed=card.seed)
    shell_mm = card.settings(ClassifierConfig).shell_mm
    return encode_patches(
        model.encoder, model.anatomy, patches, card.schema_, orientations, shell_mm=shell_mm
    )


def patten_logits(model: PattenClassifier, features: FrozenFeatures) -> Float[Tensor, " n"]:
    """Mean over ensemble and orientations, on the CPU; under balanced classes."""
    here, logits = fabric(), torch.zeros(len(features))
    for encoding in range(features.n_encodings):
        for part in torch.arange(len(features)).split(PREDICT_BATCH):
            batch = [here.to_device(x) for x in features.batch(encoding, part)]
            logits[part] += model.network(*batch).mean(0).cpu() / features.n_encodings
    return logits
