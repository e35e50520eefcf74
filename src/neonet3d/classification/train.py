"""Training NeoCls: PattenNet on the encoder of the latent diffusion model, on one fold."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.classification.features import (
    FrozenFeatures,
    encode_patches,
    encodings_of,
    feature_maps,
)
from neonet3d.classification.objective import LogitObjective
from neonet3d.classification.patten import PattenEnsemble, frozen_tokens
from neonet3d.classification.regions import region_names
from neonet3d.classification.training_set import (
    draw_balanced,
    log_odds,
    require_trainable,
    training_patches,
)
from neonet3d.cohort.folds import Fold
from neonet3d.config import AutoencoderConfig, ClassifierConfig, Config, EncoderKind
from neonet3d.engine.artefact import ArtefactCard, claim_folder, new_card, save_artefact
from neonet3d.engine.device import fabric
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.errors import InputError
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.appearance import n_factors
from neonet3d.generation.autoencoder import Autoencoder, Encoder
from neonet3d.generation.latent_flow import latent_shape, load_anatomy, load_autoencoder
from neonet3d.types import ImageBatch


class PattenClassifier(nn.Module):
    """What the artefact of PattenNet holds: what it reads, and the ensemble.

    ``anatomy`` is None where it reads no appearance factors.
    """

    def __init__(
        self, encoder: Encoder, anatomy: AnatomyPrior | None, network: PattenEnsemble
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.anatomy = anatomy
        self.network = network


class EndToEnd(nn.Module):
    """Logits of the ensemble from images, for an encoder that is trained with it."""

    def __init__(self, classifier: PattenClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(
        self, images: ImageBatch, fine_regions: Tensor, coarse_regions: Tensor
    ) -> Float[Tensor, "k b"]:
        maps = feature_maps(self.classifier.encoder, images)
        amplitudes = images.new_zeros(len(images), 0)
        logits: Tensor = self.classifier.network(*maps, fine_regions, coarse_regions, amplitudes)
        return logits


def train_patten(
    fold: Fold,
    encoder_folder: Path,
    config: Config,
    folder: Path,
    *,
    allow_no_tumour: bool = False,
) -> None:
    """Fit PattenNet on the training cases of one fold.

    Args:
        encoder_folder: an autoencoder that was trained on (real) cases of the same fold. Where the
            appearance factors are read, its anatomy prior lies beside it (``fit_anatomy``).
        allow_no_tumour: learn even from patches that show the middle of the liver.

    Raises:
        InputError: no outcomes, one class only, a case without a tumour, or an encoder of another
            cohort.
    """
    outcomes = require_trainable(fold, allow_no_tumour=allow_no_tumour)
    autoencoder, parent = load_autoencoder(encoder_folder)
    parent.refuse_other_classes(fold.training.schema)
    parent.refuse_training_cases(fold.held_out)
    card = new_card(
        "PattenNet",
        fold=fold,
        config=config.classifier,
        seed=config.seed,
        normaliser=parent.normaliser,
        grid=parent.grid,
        parents={"autoencoder": parent},
    )
    regions = region_names(fold.training.schema) if has_masks(fold) else ("whole",)
    anatomy = None
    if reads_appearance(config.classifier, regions):
        anatomy, prior = _anatomy_beside(encoder_folder, parent)
        prior.refuse_training_cases(fold.held_out)
        card = card.model_copy(update={"parents": card.parents | {"anatomy": prior.weights_sha256}})
    cases = 0 if anatomy is None else len(anatomy.bank.outcomes)
    parts = {"autoencoder": parent.config, "regions": list(regions), "anatomy_cases": cases}
    card = card.model_copy(update={"parts": parts})
    if claim_folder(folder, card):
        return
    patches, settings = training_patches(fold, card), config.classifier
    encoder = _encoder(settings.encoder, autoencoder, parent, config.seed)
    orientations = encodings_of(card.grid, settings.encodings, seed=config.seed)
    features = encode_patches(
        encoder, anatomy, patches, fold.training.schema, orientations, shell_mm=settings.shell_mm
    )
    network = seeded(config.seed, lambda: build_ensemble(card))
    network.standardise_tokens(_tokens(features))
    network.prior_logit.fill_(log_odds(outcomes, patches.synthetic))
    model = PattenClassifier(encoder, anatomy, network)
    trainable = settings.encoder == "trainable"

    def draw(generator: torch.Generator) -> list[Tensor]:
        index = draw_balanced(outcomes, patches.synthetic, settings.loop.batch_size, generator)
        encoding = int(torch.randint(features.n_encodings, (), generator=generator))
        batch = features.batch(encoding, index)
        if trainable:
            image = orientations[encoding].apply(patches.images[index])[:, None]
            batch = [image, *batch[2:4]]
        return [*batch, outcomes[index]]

    loss = train_loop(
        LogitObjective(EndToEnd(model) if trainable else network),
        draw,
        settings.loop,
        folder=folder,
        seed=config.seed,
        description=f"{fold.name}: PattenNet",
    )
    save_artefact(folder, model, card.model_copy(update={"facts": {"training_loss": loss}}))
    remove_training_state(folder)


def build_encoder(card: ArtefactCard) -> Encoder:
    """An untrained encoder of a PattenNet's card."""
    return Encoder(AutoencoderConfig.model_validate(card.parts["autoencoder"]))


def build_ensemble(card: ArtefactCard) -> PattenEnsemble:
    """Untrained PattenNets of a card's settings, encoder and regions."""
    encoder = AutoencoderConfig.model_validate(card.parts["autoencoder"])
    fine, coarse = 8 + encoder.channels, 2 * encoder.channels + encoder.latent_channels
    settings = card.settings(ClassifierConfig)
    k = n_factors(card.parts["anatomy_cases"])
    return PattenEnsemble(fine, coarse, len(card.parts["regions"]), k, settings)


def build_prior(card: ArtefactCard) -> AnatomyPrior | None:
    """An unfitted anatomy prior of a PattenNet's card; None where it reads none."""
    if card.parts["anatomy_cases"] == 0:
        return None
    channels = card.parts["autoencoder"]["latent_channels"]
    return AnatomyPrior(card.schema_, channels, latent_shape(card), card.parts["anatomy_cases"])


def reads_appearance(config: ClassifierConfig, regions: tuple[str, ...]) -> bool:
    """Masks are needed, and the encoder whose latents the prior was fitted on."""
    return config.appearance and config.encoder == "frozen" and regions != ("whole",)


def _anatomy_beside(
    encoder_folder: Path, parent: ArtefactCard
) -> tuple[AnatomyPrior, ArtefactCard]:
    folder = encoder_folder.parent / "anatomy"
    if not folder.is_dir():
        raise InputError(
            f"There is no anatomy prior ({folder}) beside the encoder. Take the encoder of "
            "'neonet3d generate train', let 'neonet3d classify train' make both, or do without the "
            "appearance factors (--set classifier.appearance=false)."
        )
    return load_anatomy(folder, parent)


def _encoder(
    kind: EncoderKind, autoencoder: Autoencoder, parent: ArtefactCard, seed: int
) -> Encoder:
    """The trained one, frozen or not, or one that has learned nothing."""
    if kind == "random":
        fresh = seeded(seed, lambda: Autoencoder(parent.settings(AutoencoderConfig))).encoder
        fabric().to_device(fresh)
        return fresh.requires_grad_(False)
    return autoencoder.encoder.requires_grad_(kind == "trainable")


def _tokens(features: FrozenFeatures) -> Float[Tensor, "n t"]:
    """Statistics of every case in every orientation."""
    everyone = torch.arange(len(features))
    return torch.cat(
        [
            frozen_tokens(*features.batch(encoding, part)[:4])
            for encoding in range(features.n_encodings)
            for part in everyone.split(64)
        ]
    )


def has_masks(fold: Fold) -> bool:
    """Whether every training case has a mask, and the classes are more than background."""
    return len(fold.training.schema) > 1 and all(c.mask_path is not None for c in fold.training)
