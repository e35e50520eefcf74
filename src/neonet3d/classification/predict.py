"""Applying a trained classifier to cases it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neonet3d.classification.baseline import VolumeClassifier
from neonet3d.classification.certainty import Prediction
from neonet3d.classification.clinical import ClinicalColumn, clinical_table
from neonet3d.classification.logistic import LogisticModel
from neonet3d.classification.patten_model import (
    PREDICT_BATCH,
    PattenClassifier,
    build_patten,
    ensemble_logits,
    patten_features,
)
from neonet3d.classification.radiomics.patient import radiomics_table
from neonet3d.classification.train_baseline import build_baseline, label_maps_given
from neonet3d.classification.tumourless import refuse_without_tumour
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import Patches, load_patches, orientations_of
from neonet3d.config import ClassifierConfig, RadiomicsConfig
from neonet3d.engine.artefact import ArtefactCard, load_weights, read_card
from neonet3d.engine.device import fabric
from neonet3d.errors import InputError

Model = PattenClassifier | VolumeClassifier | LogisticModel


class Classifier:
    """A trained PattenNet, baseline network, radiomics or clinical model.

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
                model = build_patten(card)
            case "VolumeClassifier":
                model = build_baseline(card)
            case "RadiomicsModel" | "ClinicalModel":
                model = LogisticModel(len(card.parts["features"]))
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

    @property
    def reads_scans(self) -> bool:
        """Or the table alone."""
        return self.card.kind != "ClinicalModel"

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
        if not self.reads_scans:
            columns = [ClinicalColumn.model_validate(x) for x in self.card.parts["columns"]]
            return _from_table(self.model, clinical_table(cohort, columns)).numpy()
        patches = self._patches(cohort, allow_no_tumour=allow_no_tumour)
        match self.model:
            case PattenClassifier():
                return self._assess(self.model, patches).probability
            case VolumeClassifier():
                return self._predict_baseline(self.model, patches).numpy()
            case LogisticModel():
                settings = self.card.settings(RadiomicsConfig)
                table = radiomics_table(patches, self.card.schema_, settings)
                return _from_table(self.model, table).numpy()

    @torch.inference_mode()
    def assess(self, cohort: Cohort, *, allow_no_tumour: bool = False) -> Prediction:
        """Probabilities as ``predict``, and how sure they are.

        Raises:
            InputError: as ``predict``; or this is no PattenNet.
        """
        if not isinstance(self.model, PattenClassifier):
            raise InputError(
                f"Only a PattenNet says how sure it is, and this is a {self.card.kind}. Take its "
                "probabilities alone."
            )
        return self._assess(self.model, self._patches(cohort, allow_no_tumour=allow_no_tumour))

    def _patches(self, cohort: Cohort, *, allow_no_tumour: bool) -> Patches:
        self.card.refuse_other_classes(cohort.schema)
        patches = load_patches(cohort, *self.card.reading)
        if not allow_no_tumour:
            refuse_without_tumour(cohort)
        return patches

    def _assess(self, model: PattenClassifier, patches: Patches) -> Prediction:
        encodings = self.card.settings(ClassifierConfig).encodings
        features = patten_features(model, self.card, patches, encodings)
        logits = ensemble_logits(model.network, features)
        return model.certainty.predict(logits, features.traits.numpy())

    def _predict_baseline(self, model: VolumeClassifier, patches: Patches) -> Float[Tensor, " n"]:
        here = fabric()
        maps = label_maps_given(self.card, patches)
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


def _from_table(model: Model, table: Float[np.ndarray, "n f"]) -> Float[Tensor, " n"]:
    assert isinstance(model, LogisticModel)
    logits = model(fabric().to_device(torch.from_numpy(table)))
    return model.probability(logits).float().cpu()
