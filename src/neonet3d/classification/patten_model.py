"""The artefact of PattenNet: its parts, how they are built from a card, and what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from neonet3d.classification.certainty import Certainty
from neonet3d.classification.features import FrozenFeatures, encode_patches, encodings_of
from neonet3d.classification.patten import PattenEnsemble
from neonet3d.cohort.patches import Patches
from neonet3d.config import AutoencoderConfig, ClassifierConfig
from neonet3d.engine.artefact import ArtefactCard
from neonet3d.engine.device import fabric
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.appearance import n_factors
from neonet3d.generation.autoencoder import Encoder
from neonet3d.generation.latent_flow import latent_shape
from neonet3d.generation.texture import BANDS

PREDICT_BATCH = 64


class PattenClassifier(nn.Module):
    """What the artefact of PattenNet holds: what it reads, the ensemble, and how sure it is.

    ``anatomy`` is None where nothing is read of it.
    """

    def __init__(
        self,
        encoder: Encoder,
        anatomy: AnatomyPrior | None,
        network: PattenEnsemble,
        certainty: Certainty,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.anatomy = anatomy
        self.network = network
        self.certainty = certainty


def build_encoder(card: ArtefactCard) -> Encoder:
    """An untrained encoder of a PattenNet's card."""
    return Encoder(AutoencoderConfig.model_validate(card.parts["autoencoder"]))


def build_ensemble(card: ArtefactCard) -> PattenEnsemble:
    """Untrained PattenNets of a card's settings, encoder and regions."""
    encoder = AutoencoderConfig.model_validate(card.parts["autoencoder"])
    settings = card.settings(ClassifierConfig)
    channels: tuple[int, ...] = ()
    if "deep" in settings.readings:
        maps = (8 + encoder.channels, 2 * encoder.channels + encoder.latent_channels)
        channels = maps if settings.features == "maps" else (encoder.latent_channels,)
    appearance = "appearance" in settings.readings
    k = n_factors(card.parts["anatomy_cases"]) if appearance else 0
    n_regions = len(card.parts["regions"])
    n_distances = len(card.classes) - 1 if settings.masks_as_channels else 0
    return PattenEnsemble(card.parts["members"], channels, n_distances, n_regions, k, settings)


def build_certainty(card: ArtefactCard) -> Certainty:
    """Unfitted, of a card's number of cases and encoder."""
    channels = card.parts["autoencoder"]["latent_channels"]
    return Certainty(card.parts["judged_cases"], 2 * channels + BANDS)


def build_prior(card: ArtefactCard) -> AnatomyPrior | None:
    """An unfitted anatomy prior of a PattenNet's card; None where it reads none."""
    if card.parts["anatomy_cases"] == 0:
        return None
    channels = card.parts["autoencoder"]["latent_channels"]
    return AnatomyPrior(card.schema_, channels, latent_shape(card), card.parts["anatomy_cases"])


def build_patten(card: ArtefactCard) -> PattenClassifier:
    """An untrained PattenNet of its card."""
    return PattenClassifier(
        build_encoder(card), build_prior(card), build_ensemble(card), build_certainty(card)
    )


def patten_features(
    model: PattenClassifier, card: ArtefactCard, patches: Patches, n_encodings: int
) -> FrozenFeatures:
    """What PattenNet reads of patches on its grid, in so many orientations, the patch's own first.

    Raises:
        InputError: a case without a mask where the classifier was trained on masks.
    """
    settings = card.settings(ClassifierConfig)
    if settings.masks_as_channels or card.parts["regions"] != ["whole"] or model.anatomy:
        patches.required_label_maps()
    else:  # no mask is looked at
        patches = replace(patches, label_maps=None)
    orientations = encodings_of(card.grid, n_encodings, seed=card.seed)
    return encode_patches(
        model.encoder,
        model.anatomy,
        settings.features,
        patches,
        card.schema_,
        orientations,
        shell_mm=settings.shell_mm,
        distances=settings.masks_as_channels,
    )


@torch.inference_mode()
def ensemble_logits(network: PattenEnsemble, features: FrozenFeatures) -> Float[np.ndarray, "k n"]:
    """Logit of each member, mean over orientations, under balanced classes."""
    here, n = fabric(), len(features)
    here.to_device(network.eval())
    logits = torch.zeros(len(network.members), n)
    for encoding in range(features.n_encodings):
        for part in torch.arange(n).split(PREDICT_BATCH):
            batch = [here.to_device(x) for x in features.batch(encoding, part)]
            logits[:, part] += network(*batch).cpu() / features.n_encodings
    return logits.numpy()
