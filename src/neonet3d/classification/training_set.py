"""What every classifier of a fold is trained on: its patches, its classes, how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor

from neonet3d.classification.tumourless import refuse_without_tumour
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import Patches, load_patches
from neonet3d.engine.artefact import ArtefactCard
from neonet3d.errors import InputError


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


def training_patches(fold: Fold, card: ArtefactCard) -> Patches:
    """On the grid and with the intensities of a card."""
    return load_patches(fold.training, *card.reading)


def log_odds(outcomes: Int[Tensor, " n"], synthetic: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """Log odds of the outcome among the real training cases; of all, where there are none."""
    return torch.logit(outcomes[judged(synthetic)].double().mean()).float()


def judged(synthetic: Bool[Tensor, " n"]) -> Int[Tensor, " m"]:
    """The cases that say how common an outcome is and how good a model: the real ones.

    A synthetic set alone (``balance.mode=pretrain``) has only itself to be judged by.
    """
    rows = (~synthetic).nonzero()[:, 0]
    return rows if len(rows) else torch.arange(len(synthetic))


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


def draw_balanced(
    outcomes: Int[Tensor, " n"],
    synthetic: Bool[Tensor, " n"],
    size: int,
    generator: torch.Generator,
) -> Int[Tensor, " size"]:
    """Rows of a batch, by ``balanced_weights``."""
    weight = balanced_weights(outcomes, synthetic)
    return torch.multinomial(weight, size, replacement=True, generator=generator)


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
