"""Training NeoCls: PattenNet on a frozen encoder, and the ResNet baseline, on one fold."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from neonet3d.classification.baseline import ResNetBaseline
from neonet3d.classification.features import encode_patches, encodings_of
from neonet3d.classification.patten import PattenNet, frozen_tokens
from neonet3d.classification.regions import region_names
from neonet3d.classification.tumourless import refuse_without_tumour
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import Patches, load_patches, orientations_of
from neonet3d.config import Config
from neonet3d.engine.artefact import ArtefactCard, claim_folder, new_card, save_artefact
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.errors import InputError
from neonet3d.generation.autoencoder import Encoder
from neonet3d.generation.latent_flow import load_autoencoder

LABEL_SMOOTHING = 0.05


class FrozenClassifier(nn.Module):
    """What the artefact of PattenNet holds: the encoder that it reads, and itself."""

    def __init__(self, encoder: Encoder, network: PattenNet) -> None:
        super().__init__()
        self.encoder = encoder
        self.network = network


class LogitObjective(nn.Module):
    """Binary cross-entropy; the last element of the batch is the outcome."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *batch: Tensor) -> Tensor:
        *inputs, outcome = batch
        target = outcome.float() * (1 - LABEL_SMOOTHING) + 0.5 * LABEL_SMOOTHING
        return F.binary_cross_entropy_with_logits(self.network(*inputs), target)


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
        encoder_folder: an autoencoder that was trained on (real) cases of the same fold.
        allow_no_tumour: learn even from patches that show the middle of the liver.

    Raises:
        InputError: no outcomes, one class only, a case without a tumour, or an encoder of another
            cohort.
    """
    outcomes = _both_classes(fold)
    if not allow_no_tumour:
        refuse_without_tumour(fold.training)
    autoencoder, parent = load_autoencoder(encoder_folder)
    encoder = autoencoder.encoder
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
    regions = region_names(fold.training.schema) if _has_masks(fold) else ("whole",)
    parts = {"autoencoder": parent.config, "regions": list(regions)}
    card = card.model_copy(update={"parts": parts})
    if claim_folder(folder, card):
        return
    patches = _patches(fold, card)
    settings = config.classifier
    orientations = encodings_of(card.grid, settings.encodings, seed=config.seed)
    features = encode_patches(
        encoder, patches, fold.training.schema, orientations, shell_mm=settings.shell_mm
    )
    network = seeded(
        config.seed,
        lambda: PattenNet(features.fine.shape[2], features.coarse.shape[2], len(regions), settings),
    )
    everyone = torch.arange(len(features))
    tokens = torch.cat(
        [
            frozen_tokens(*features.batch(e, part))
            for e in range(features.n_encodings)
            for part in everyone.split(64)
        ]
    )
    network.token_mean.copy_(tokens.mean(0))
    network.token_std.copy_(tokens.std(0).clamp_min(1e-4))
    network.prior_logit.fill_(_log_odds(outcomes, patches.synthetic))

    def draw(generator: torch.Generator) -> list[Tensor]:
        index = draw_balanced(outcomes, patches.synthetic, settings.loop.batch_size, generator)
        encoding = int(torch.randint(features.n_encodings, (), generator=generator))
        return [*features.batch(encoding, index), outcomes[index]]

    loss = train_loop(
        LogitObjective(network),
        draw,
        settings.loop,
        folder=folder,
        seed=config.seed,
        description=f"{fold.name}: PattenNet",
    )
    model = FrozenClassifier(encoder, network)
    save_artefact(folder, model, card.model_copy(update={"facts": {"training_loss": loss}}))
    remove_training_state(folder)


def train_baseline(
    fold: Fold,
    reference: ArtefactCard,
    config: Config,
    folder: Path,
    *,
    allow_no_tumour: bool = False,
) -> None:
    """Fit the ResNet on the same patches (grid and normaliser of ``reference``), end to end.

    Raises:
        InputError: no outcomes, one class only, or a case without a tumour.
    """
    outcomes = _both_classes(fold)
    if not allow_no_tumour:
        refuse_without_tumour(fold.training)
    card = new_card(
        "ResNetBaseline",
        fold=fold,
        config=config.baseline,
        seed=config.seed,
        normaliser=reference.normaliser,
        grid=reference.grid,
    )
    if claim_folder(folder, card):
        return
    patches = _patches(fold, card)
    maps = patches.label_maps
    orientations = orientations_of(card.grid)
    network = seeded(
        config.seed, lambda: ResNetBaseline(len(fold.training.schema), config.baseline.width)
    )
    network.prior_logit.fill_(_log_odds(outcomes, patches.synthetic))

    def draw(generator: torch.Generator) -> list[Tensor]:
        n = config.baseline.loop.batch_size
        index = draw_balanced(outcomes, patches.synthetic, n, generator)
        turn = orientations[int(torch.randint(len(orientations), (), generator=generator))]
        images = turn.apply(patches.images[index])
        label_maps = (
            torch.zeros_like(images, dtype=torch.uint8) if maps is None else turn.apply(maps[index])
        )
        return [images[:, None], label_maps, outcomes[index]]

    loss = train_loop(
        LogitObjective(network),
        draw,
        config.baseline.loop,
        folder=folder,
        seed=config.seed,
        description=f"{fold.name}: ResNet-18",
    )
    save_artefact(folder, network, card.model_copy(update={"facts": {"training_loss": loss}}))
    remove_training_state(folder)


def draw_balanced(
    outcomes: Int[Tensor, " n"],
    synthetic: Bool[Tensor, " n"],
    size: int,
    generator: torch.Generator,
) -> Int[Tensor, " size"]:
    """Draw cases so that the classes come 1:1 and provenance says nothing about the class.

    Where both classes hold synthetic cases, both draw the same share of them (the mean of the two);
    otherwise being synthetic would predict the label. A class without
    synthetic cases draws real ones only, which is what the rare-class recipe does.
    """
    weight = torch.zeros(len(outcomes), dtype=torch.float64)
    shares = [float(synthetic[outcomes == y].double().mean()) for y in (0, 1)]
    common = sum(shares) / 2 if min(shares) > 0 else None
    for y in (0, 1):
        share = shares[y] if common is None else common
        for flag, part in ((True, share), (False, 1 - share)):
            members = (outcomes == y) & (synthetic == flag)
            if members.any():
                weight[members] = part / members.sum()
    return torch.multinomial(weight, size, replacement=True, generator=generator)


def _both_classes(fold: Fold) -> Int[Tensor, " n"]:
    outcomes = torch.from_numpy(fold.training.outcomes)
    if len(outcomes.unique()) < 2:
        raise InputError(
            f"The training cases of {fold.training.root} are all of one class; "
            "a classifier needs both."
        )
    return outcomes


def _has_masks(fold: Fold) -> bool:
    return len(fold.training.schema) > 1 and all(c.mask_path is not None for c in fold.training)


def _patches(fold: Fold, card: ArtefactCard) -> Patches:
    assert card.normaliser is not None  # the autoencoder always records one
    return load_patches(fold.training, card.grid, card.normaliser)


def _log_odds(outcomes: Int[Tensor, " n"], synthetic: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Log odds of the outcome among the real training cases."""
    return torch.logit(outcomes[~synthetic].double().mean()).float()
