"""What every classifier of a fold is trained on: its patches, its classes, how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn

from neonet3d.classification.tumourless import refuse_without_tumour
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import Patches, load_patches
from neonet3d.config import Drawing, fingerprint
from neonet3d.engine.artefact import ArtefactCard, load_weights, read_card
from neonet3d.errors import InputError

# Sizes of a classifier that its training set decides.
JUDGED, MEMBERS = "judged_cases", "members"
MASKS = "masks"  # whether the model was given them
PATIENTS = "patients"  # which cases are of one patient
OF_ITS_CASES = (JUDGED, MEMBERS, PATIENTS)
ModelT = TypeVar("ModelT", bound=nn.Module)


def require_trainable(fold: Fold, *, allow_no_tumour: bool) -> Int[Tensor, " n"]:
    """Outcomes of the training cases.

    Raises:
        InputError: they are all of one class, or there are none; or a case shows no tumour and
            ``allow_no_tumour`` is not said.
    """
    outcomes = torch.from_numpy(fold.training.outcomes)
    if len(outcomes.unique()) < 2:
        raise InputError(
            f"The training cases of {fold.training.root} are all of one class; "
            "a classifier needs both."
        )
    if not allow_no_tumour:
        refuse_without_tumour(fold.training)
    return outcomes


def has_masks(fold: Fold) -> bool:
    """Whether every training case has a mask, and the classes are more than background."""
    return len(fold.training.schema) > 1 and all(c.mask_path is not None for c in fold.training)


def grouping(patients: Sequence[str]) -> str:
    """Changes when cases come to be of other patients; names none."""
    return fingerprint(np.unique(np.array(patients), return_inverse=True)[1].tolist())


def training_patches(fold: Fold, card: ArtefactCard) -> Patches:
    """On the grid and with the intensities of a card."""
    return load_patches(fold.training, *card.reading)


def with_start(card: ArtefactCard, start: Path | None, fold: Fold) -> ArtefactCard:
    """The card of a model that goes on from another.

    Raises:
        InputError: the other was trained on a case that the fold holds out.
    """
    if start is None:
        return card
    other = read_card(start)
    other.refuse_training_cases(fold.held_out)
    parents = card.parents | {"start": other.weights_sha256}
    return card.model_copy(update={"parents": parents})


def loaded_start(
    start: Path, card: ArtefactCard, build: Callable[[ArtefactCard], ModelT]
) -> ModelT:
    """The model that a training with this card goes on from.

    Args:
        build: an untrained model of a card.

    Raises:
        InputError: it has other settings, sizes or patches, or was built on another part.
    """
    other = read_card(start, kind=card.kind)
    sizes, own = (
        {k: v for k, v in of.parts.items() if k not in OF_ITS_CASES} for of in (other, card)
    )
    built_on = {name: of for name, of in card.parents.items() if name != "start"}
    same = (other.grid, other.config, sizes) == (card.grid, card.config, own)
    if not same or other.parents != built_on:
        raise InputError(
            f"{start} was trained with other settings, patches or parts than what is to go on from "
            "it. Train both alike."
        )
    model = build(other)
    load_weights(start, model, other)
    return model


def log_odds(outcomes: Int[Tensor, " n"], synthetic: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Log odds of the outcome among the real training cases; of all, where there are none."""
    return torch.logit(outcomes[judged(synthetic)].double().mean()).float()


def judged(synthetic: Bool[Tensor, " n"]) -> Int[Tensor, " m"]:
    """The cases that say how common an outcome is and how good a model: the real ones.

    A synthetic set alone (``balance.mode=pretrain``) has only itself to be judged by.
    """
    rows = (~synthetic).nonzero()[:, 0]
    return rows if len(rows) else torch.arange(len(synthetic))


def one_of_each(rows: Int[np.ndarray, " m"], patients: Sequence[str]) -> Int[np.ndarray, " k"]:
    """The first of these rows of each patient: how sure a model is, is counted in patients."""
    _, first = np.unique(np.array(patients)[rows], return_index=True)
    return rows[np.sort(first)]


def balanced_weights(
    outcomes: Int[Tensor, " n"], synthetic: Bool[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """How often to draw each case, so that classes come 1:1 and provenance tells no class.

    Where both classes hold synthetic cases, both draw the same share of them (the mean of the two);
    otherwise being synthetic would predict the label. A class without
    synthetic cases draws real ones only, which is what the rare-class recipe does.

    Returns:
        float64, sums to 2.
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
    return weight


@dataclass(frozen=True)
class Draws:
    """How the training cases of a classifier are drawn and weighed.

    ``balanced``: batches hold both classes alike (oversampling). ``natural``: cases come as often
    as they are there. ``weighted``: the same, and count in the loss so that classes weigh alike.

    Every classifier's logit is one under balanced classes: where they are not, the log odds of the
    classes are added to it in the loss (Menon et al. 2021, arXiv 2007.07314).

    Attributes:
        frequency: (n,) of a case among the draws, up to a factor.
        importance: (n,) of a case in the loss, with mean 1 over the draws.
        log_odds: of the outcome as the loss sees it; 0 where classes weigh alike.
    """

    frequency: Float[Tensor, " n"]
    importance: Float[Tensor, " n"]
    log_odds: float

    @classmethod
    def of(
        cls, outcomes: Int[Tensor, " n"], synthetic: Bool[Tensor, " n"], drawing: Drawing
    ) -> Draws:
        balanced = balanced_weights(outcomes, synthetic)
        alike = torch.ones_like(balanced)
        match drawing:
            case "balanced":
                return cls(balanced, alike, 0.0)
            case "natural":
                return cls(alike, alike, float(torch.logit(outcomes.double().mean())))
            case "weighted":
                return cls(alike, balanced * len(outcomes) / 2, 0.0)

    def rows(self, size: int, generator: torch.Generator) -> Int[Tensor, " size"]:
        """Rows of a batch."""
        return torch.multinomial(self.frequency, size, replacement=True, generator=generator)

    def weights(self) -> Float[np.ndarray, " n"]:
        """Of the cases in a fit that sees all of them once; mean 1."""
        weight = self.frequency * self.importance
        return (weight / weight.mean()).numpy()


def inner_folds(
    outcomes: Int[Tensor, " n"], patients: Sequence[str], n_folds: int, *, seed: int
) -> Int[np.ndarray, " n"]:
    """Which of up to ``n_folds`` parts each training case belongs to; a patient's stay together.

    A synthetic case belongs to the part of the patient whose mask it has (``patients_of``), so
    that it does not speak for a patient that was left out.

    Raises:
        InputError: fewer than two patients in a class.
    """
    y, groups = outcomes.numpy(), np.array(patients)
    fewest = min(len(np.unique(groups[y == outcome])) for outcome in (0, 1))
    if fewest < 2:
        raise InputError(
            "A class has one training patient, and each part that is left out in turn needs one of "
            "each class in the rest. Add cases."
        )
    splitter = StratifiedGroupKFold(min(n_folds, fewest), shuffle=True, random_state=seed)
    parts = np.zeros(len(y), dtype=np.int64)
    for part, (_, left_out) in enumerate(splitter.split(y, y, groups)):
        parts[left_out] = part
    return parts
