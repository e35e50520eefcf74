"""Training NeoCls: PattenNet on the encoder of the latent diffusion model, on one fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from neonet3d.classification.features import encodings_of, feature_maps
from neonet3d.classification.objective import LogitObjective
from neonet3d.classification.patten import AMPLITUDE_LIMIT, PattenEnsemble, PattenNet
from neonet3d.classification.patten_model import (
    PattenClassifier,
    build_certainty,
    build_ensemble,
    build_patten,
    ensemble_logits,
    patten_features,
)
from neonet3d.classification.regions import region_names
from neonet3d.classification.training_set import (
    JUDGED,
    MEMBERS,
    PATIENTS,
    Draws,
    grouping,
    has_masks,
    inner_folds,
    judged,
    loaded_start,
    log_odds,
    one_of_each,
    require_trainable,
    training_patches,
    with_start,
)
from neonet3d.cohort.folds import Fold
from neonet3d.config import AutoencoderConfig, Config, EncoderKind
from neonet3d.engine.artefact import ArtefactCard, new_card, save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.engine.device import fabric
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.errors import InputError
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.autoencoder import Autoencoder, Encoder
from neonet3d.generation.latent_flow import load_anatomy, load_autoencoder
from neonet3d.generation.sources import patients_of
from neonet3d.metrics.discrimination import auc

# Inverse of the penalty on the weights of amplitudes, which have unit variance. From 0.01 to 10 the
# AUC on phantoms moves by .002.
APPEARANCE_STRENGTH = 0.1


class Apart(nn.Module):
    """Deep logits of the members, each for cases of its own; from images where there is an encoder
    that is trained with them."""

    def __init__(self, network: PattenEnsemble, encoder: Encoder | None) -> None:
        super().__init__()
        self.network = network
        self.encoder = encoder

    def forward(self, *inputs: Tensor) -> Float[Tensor, "k b"]:
        if self.encoder is not None:
            images, *others = inputs
            inputs = (*feature_maps(self.encoder, images), *others)
        return self.network.deep_apart(*inputs)


def train_patten(
    fold: Fold,
    encoder_folder: Path,
    config: Config,
    folder: Path,
    *,
    start: Path | None = None,
    allow_no_tumour: bool = False,
) -> None:
    """Fit PattenNet on the training cases of one fold.

    Each member of the ensemble leaves out another part of the patients; what it says of them is
    what ``Certainty`` is fitted on.

    Args:
        encoder_folder: an autoencoder that was trained on (real) cases of the same fold. Where the
            anatomy's residual or appearance factors are read, the anatomy prior lies beside it
            (``fit_anatomy``).
        start: a PattenNet on the same encoder to go on from, such as one of synthetic cases. Its
            members left out other cases, so calibration is a little surer than it should be.
        allow_no_tumour: learn even from patches that show the middle of the liver.

    Raises:
        InputError: no outcomes, one class only, a class of one patient, a case without a tumour,
            an encoder of another cohort, cases without masks where the anatomy is read, or a start
            of another kind.
    """
    outcomes = require_trainable(fold, allow_no_tumour=allow_no_tumour)
    settings = config.classifier
    autoencoder, parent = load_autoencoder(encoder_folder)
    parent.refuse_other_classes(fold.training.schema)
    parent.refuse_training_cases(fold.held_out)
    card = new_card(
        "PattenNet",
        fold=fold,
        config=settings,
        seed=config.seed,
        normaliser=parent.normaliser,
        grid=parent.grid,
        parents={"autoencoder": parent},
    )
    anatomy = None
    if settings.masks_as_channels or settings.needs_anatomy:
        _require_masks(fold)
    if settings.needs_anatomy:
        anatomy, prior = _anatomy_beside(encoder_folder, parent)
        prior.refuse_training_cases(fold.held_out)
        card = card.model_copy(update={"parents": card.parents | {"anatomy": prior.weights_sha256}})
    regions = region_names(fold.training.schema) if has_masks(fold) else ("whole",)
    patients = patients_of(fold.training)
    parts = inner_folds(outcomes, patients, settings.members, seed=config.seed)
    members = int(parts.max()) + 1
    synthetic = torch.tensor([case.synthetic for case in fold.training])
    known = one_of_each(judged(synthetic).numpy(), patients)
    sizes = {
        "autoencoder": parent.config,
        "regions": list(regions),
        "anatomy_cases": 0 if anatomy is None else len(anatomy.bank.outcomes),
        MEMBERS: members,
        JUDGED: len(known),
        PATIENTS: grouping(patients),
    }
    card = with_start(card.model_copy(update={"parts": sizes}), start, fold)
    if claim_folder(folder, card):
        return
    patches = training_patches(fold, card)
    encoder = _encoder(settings.encoder, autoencoder, parent, config.seed)
    network = seeded(config.seed, lambda: build_ensemble(card))
    network.prior_logit.fill_(log_odds(outcomes, patches.synthetic))
    model = PattenClassifier(encoder, anatomy, network, build_certainty(card))
    if start is not None:
        first = loaded_start(start, card, build_patten)
        encoder.load_state_dict(first.encoder.state_dict())  # another only where it was trained
        for k, member in enumerate(network.members):
            own = first.network.members[k % len(first.network.members)]
            member.load_state_dict(own.state_dict())
    features = patten_features(model, card, patches, settings.encodings)
    orientations = encodings_of(card.grid, settings.encodings, seed=config.seed)
    kept = [torch.from_numpy(np.flatnonzero(parts != part)) for part in range(members)]
    whole = Draws.of(outcomes, patches.synthetic, settings.drawing)
    draws = [Draws.of(outcomes[r], patches.synthetic[r], settings.drawing) for r in kept]
    if "appearance" in settings.readings:
        for member, rows, of_member in zip(network.members, kept, draws, strict=True):
            _fit_appearance(member, features.amplitudes[rows], outcomes[rows], of_member)
    loss = 0.0
    trainable = settings.encoder == "trainable"
    if "deep" in settings.readings:

        def draw(generator: torch.Generator) -> list[Tensor]:
            n = settings.loop.batch_size
            drawn = [of_member.rows(n, generator) for of_member in draws]
            index = torch.cat([rows[i] for rows, i in zip(kept, drawn, strict=True)])
            importance = [d.importance[i] for d, i in zip(draws, drawn, strict=True)]
            encoding = int(torch.randint(features.n_encodings, (), generator=generator))
            batch = features.batch(encoding, index)
            if trainable:
                image = orientations[encoding].apply(patches.images[index])[:, None]
                batch = [image, *batch[len(features.levels) :]]
            return [*batch, outcomes[index].view(members, n), torch.stack(importance)]

        loss = train_loop(
            LogitObjective(Apart(network, encoder if trainable else None), whole.log_odds),
            draw,
            settings.loop,
            folder=folder,
            seed=config.seed,
            description=f"{fold.name}: PattenNet",
        )
        if trainable:  # what it says of the cases now is not what it said when they were encoded
            encoder.requires_grad_(False)
            features = patten_features(model, card, patches, settings.encodings)
    left_out = ensemble_logits(network, features)[parts, np.arange(len(parts))]
    labels, said = outcomes.numpy()[known], left_out[known]
    model.certainty.fit(said, labels, features.traits.numpy()[known], parts[known])
    facts = {"training_loss": loss, "left_out_auc": auc(labels, said)}
    save_artefact(folder, model, card.model_copy(update={"facts": facts}))
    remove_training_state(folder)


def _fit_appearance(
    member: nn.Module,
    amplitudes: Float[Tensor, "m k"],
    outcomes: Int[Tensor, " m"],
    draws: Draws,
) -> None:
    """Logistic regression of some cases' outcomes on their amplitudes, in closed form."""
    assert isinstance(member, PattenNet)
    if amplitudes.shape[1] == 0:
        return
    seen = amplitudes.clamp(-AMPLITUDE_LIMIT, AMPLITUDE_LIMIT).double().numpy()
    fitted = LogisticRegression(C=APPEARANCE_STRENGTH).fit(seen, outcomes, draws.weights())
    member.appearance_weight.copy_(torch.from_numpy(fitted.coef_[0]))
    member.appearance_bias.fill_(float(fitted.intercept_[0]) - draws.log_odds)


def _require_masks(fold: Fold) -> None:
    if not has_masks(fold):
        raise InputError(
            f"PattenNet reads what a mask's anatomy does not explain, and {fold.training.root} has "
            "cases without masks. Run 'neonet3d segment predict', or read the encoder's own maps "
            "(--set classifier.features=maps --set classifier.readings=[deep]), without "
            "masks_as_channels."
        )


def _anatomy_beside(
    encoder_folder: Path, parent: ArtefactCard
) -> tuple[AnatomyPrior, ArtefactCard]:
    folder = encoder_folder.parent / "anatomy"
    if not folder.is_dir():
        raise InputError(
            f"There is no anatomy prior ({folder}) beside the encoder. Take the encoder of "
            "'neonet3d generate train', let 'neonet3d classify train' make both, or read the "
            "encoder's own maps (--set classifier.features=maps --set classifier.readings=[deep])."
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
