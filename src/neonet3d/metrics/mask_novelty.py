"""How new drawn label maps are: their likeness to the nearest training map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from neonet3d.errors import InputError


@dataclass(frozen=True)
class MaskNovelty:
    """Largest Dice, mean over the foreground classes, with a training map.

    Attributes:
        drawn: (n,) of each drawn map; 1 is a copy.
        training: (m,) of each training map with those of other patients: what is usual.
    """

    drawn: Float[np.ndarray, " n"]
    training: Float[np.ndarray, " m"]


def mask_novelty(
    drawn: UInt8[np.ndarray, "n x y z"],
    training: UInt8[np.ndarray, "m x y z"],
    patients: Sequence[str],
    n_classes: int,
) -> MaskNovelty:
    """Compare drawn maps with training maps, and those with each other.

    Args:
        patients: of each training map; maps of one patient are not compared with each other.

    Raises:
        InputError: the grids differ, or the training maps are of a single patient.
    """
    if drawn.shape[1:] != training.shape[1:]:
        raise InputError(
            f"The drawn maps are {drawn.shape[1:]} voxels but those of training "
            f"{training.shape[1:]}. Bring both to one grid."
        )
    if len(set(patients)) < 2:
        raise InputError(
            "All training masks are of one patient, so there is nothing usual to compare with. "
            "Give the masks of several patients."
        )
    others = np.array(patients)[:, None] != np.array(patients)[None]
    within = np.where(others, mean_dice(training, training, n_classes), -np.inf)
    return MaskNovelty(mean_dice(drawn, training, n_classes).max(1), within.max(1))


def mean_dice(
    first: UInt8[np.ndarray, "n x y z"], second: UInt8[np.ndarray, "m x y z"], n_classes: int
) -> Float[np.ndarray, "n m"]:
    """Dice of every pair, mean over the foreground classes that either of the two holds.

    Dice, Ecology 26 (1945) 297. Two maps without any foreground are alike: 1.
    """
    total = np.zeros((len(first), len(second)))
    held = np.zeros_like(total)
    for k in range(1, n_classes):
        a = (first == k).reshape(len(first), -1).astype(np.float32)
        b = (second == k).reshape(len(second), -1).astype(np.float32)
        size = a.sum(1)[:, None] + b.sum(1)[None]
        total += 2 * (a @ b.T) / np.maximum(size, 1)
        held += size > 0
    return np.where(held > 0, total / np.maximum(held, 1), 1.0)
