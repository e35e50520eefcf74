"""Does the generator copy its training cases? Neighbours, duplicates and losses tell.

A measure speaks of copying only when its interval does; nothing here proves privacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import cdist

from neonet3d.errors import InputError
from neonet3d.metrics.discrimination import delong
from neonet3d.metrics.interval import Interval, bootstrap_mean, wilson

NEIGHBOURS = 50
COPY_RATIO = 0.3
"""Under it a case counts as a copy. Carlini et al. take 0.5 for images drawn without a mask; here
they are drawn on the (deformed) mask of a patient, and lie nearest to that patient for a good
reason. Chosen on images of one fold of the demo, between such draws and training patches with some
noise."""
MEMBER_AUC = 0.6
"""Below it an attack by the loss is of no use, whatever its interval; our choice."""


@dataclass(frozen=True)
class NearestNeighbours:
    """Nearest training and held-out case of each synthetic case.

    Attributes:
        share_nearer_training: Share of synthetic cases whose nearest training case is nearer than
            every held-out case, with its Wilson interval.
        expected_share: That share for a generator that copies nothing, t / (t + h): 0.5 where
            there are as many training as held-out cases; the mean where cases were left out.
        nearest_training: Row of the nearest training case, ``[s]``.
        training_distance: Distance to it, in the units of the features, ``[s]``.
        held_out_distance: Distance to the nearest held-out case, ``[s]``.
    """

    share_nearer_training: Interval
    expected_share: float
    nearest_training: Int[np.ndarray, " s"]
    training_distance: Float[np.ndarray, " s"]
    held_out_distance: Float[np.ndarray, " s"]

    @property
    def copies(self) -> bool:
        """Whether the interval lies above what no copying would give."""
        return self.share_nearer_training.low > self.expected_share


@dataclass(frozen=True)
class Duplicates:
    """Synthetic cases that are nearly another case.

    Attributes:
        of_training: Share of synthetic cases that are nearly a training case, Wilson interval.
        of_synthetic: Share that are nearly another synthetic case.
        training_ratio: Distance to the nearest training case over the mean to the nearest ones,
            ``[s]``.
        synthetic_ratio: The same among the other synthetic cases, ``[s]``.
    """

    of_training: Interval
    of_synthetic: Interval
    training_ratio: Float[np.ndarray, " s"]
    synthetic_ratio: Float[np.ndarray, " s"]


@dataclass(frozen=True)
class Membership:
    """How well the loss of a case tells whether the model was trained on it.

    Attributes:
        auc: Of "trained on" by lower loss, with its DeLong interval; 0.5 gives nothing away.
        training_loss: Mean over training cases.
        held_out_loss: Mean over held-out cases.
    """

    auc: Interval
    training_loss: Interval
    held_out_loss: Interval

    @property
    def copies(self) -> bool:
        """Whether the AUC is above ``MEMBER_AUC`` and its interval above one half."""
        return self.auc.value > MEMBER_AUC and self.auc.low > 0.5


def nearest_neighbour_ratio(
    synthetic: Float[np.ndarray, "s d"],
    training: Float[np.ndarray, "t d"],
    held_out: Float[np.ndarray, "h d"],
    *,
    not_training: Bool[np.ndarray, "s t"] | None = None,
    not_held_out: Bool[np.ndarray, "s h"] | None = None,
    confidence: float = 0.95,
) -> NearestNeighbours:
    """How often a synthetic case lies nearer to a training case than to any held-out case.

    If the generator learned the distribution and not the cases, training and held-out cases are
    exchangeable to it, and the nearest of all t + h is a training case with probability
    t / (t + h). A share whose interval lies above ``expected_share`` says that cases were copied.
    Nothing is subsampled to bring the expectation to one half, for the copied case might be what
    is dropped; but a large t / h leaves little room above the expectation, so keep held-out cases.
    The Wilson interval takes synthetic cases as independent; they share the two reference sets, so
    it is a little short. A tie counts as not nearer.

    Source: Meehan, Chaudhuri & Dasgupta, AISTATS 2020 (data-copying test), in its simplest form.

    Args:
        synthetic: One feature vector for each synthetic case, ``[s, d]``.
        training: Of each case that the generator was trained on, ``[t, d]``.
        held_out: Of real cases that it never saw, ``[h, d]``.
        not_training: Pairs that are not compared, ``[s, t]``: a case that was drawn on the mask of
            a patient lies near that patient for a good reason. None compares all.
        not_held_out: The same for held-out cases, ``[s, h]``.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: A set is empty (or all of it is left out for a synthetic case), the widths
            differ, or a feature is not finite.
    """
    _check(synthetic=synthetic, training=training, held_out=held_out)
    to_training = _distances(synthetic, training, not_training, "training")
    to_held_out = _distances(synthetic, held_out, not_held_out, "held-out")
    n_training, n_held_out = (np.isfinite(d).sum(axis=1) for d in (to_training, to_held_out))
    training_distance = to_training.min(axis=1)
    held_out_distance = to_held_out.min(axis=1)
    nearer = int(np.count_nonzero(training_distance < held_out_distance))
    return NearestNeighbours(
        share_nearer_training=wilson(nearer, synthetic.shape[0], confidence=confidence),
        expected_share=math.fsum(n_training / (n_training + n_held_out)) / len(synthetic),
        nearest_training=to_training.argmin(axis=1),
        training_distance=training_distance,
        held_out_distance=held_out_distance,
    )


def find_duplicates(
    synthetic: Float[np.ndarray, "s d"],
    training: Float[np.ndarray, "t d"],
    *,
    threshold: float = COPY_RATIO,
    confidence: float = 0.95,
) -> Duplicates:
    """Synthetic cases that are nearly a training case, or nearly each other.

    A case counts where its distance to the nearest case is below ``threshold`` times the mean
    distance to its ``NEIGHBOURS`` nearest (all of them where there are fewer). A plain distance
    would call every smooth case a copy, since what lies near the middle of all lies near each.
    Among the synthetic cases, several draws on one mask may be alike: give one draw per mask to
    read that share as a collapse of the generator.

    Source: Carlini et al., USENIX Security 2023 (arXiv 2301.13188), section 4.2 and 5.1.

    Args:
        synthetic: One feature vector for each synthetic case, such as its voxels, ``[s, d]``.
        training: Of each training case, ``[t, d]``.
        threshold: Largest ratio of a duplicate; chosen for images, not for other features.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: Under two training or three synthetic cases, the widths differ, or a feature is
            not finite.
    """
    _check(synthetic=synthetic, training=training)
    if len(training) < 2 or len(synthetic) < 3:
        raise InputError(
            f"There are {len(training)} training and {len(synthetic)} synthetic cases, but a ratio "
            "to the nearest ones needs at least 2 training and 3 synthetic cases. Add cases."
        )
    among = cdist(synthetic, synthetic)
    np.fill_diagonal(among, np.inf)
    of_training, of_synthetic = nearest_ratio(cdist(synthetic, training)), nearest_ratio(among)
    n = len(synthetic)
    return Duplicates(
        wilson(int((of_training < threshold).sum()), n, confidence=confidence),
        wilson(int((of_synthetic < threshold).sum()), n, confidence=confidence),
        of_training,
        of_synthetic,
    )


def infer_membership(
    training_losses: Float[np.ndarray, " t"],
    held_out_losses: Float[np.ndarray, " h"],
    seed: int,
    *,
    confidence: float = 0.95,
) -> Membership:
    """AUC with which a lower loss tells training cases from held-out ones.

    Source: Yeom et al., CSF 2018 (loss threshold); Carlini et al., IEEE S&P 2022 (why the whole ROC
    and not one accuracy). A stronger attack may find more: this is a lower bound.

    Args:
        training_losses: Loss of each training case, ``[t]``, one for each patient.
        held_out_losses: Loss of each case that the model never saw, measured alike, ``[h]``.
        seed: Seed of the intervals of the mean losses.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: Under two cases on a side, or a loss is not finite.
    """
    losses = np.concatenate([training_losses, held_out_losses])
    member = np.repeat([1, 0], [len(training_losses), len(held_out_losses)])
    return Membership(
        delong(member, -losses, confidence),
        bootstrap_mean(training_losses, seed, confidence=confidence),
        bootstrap_mean(held_out_losses, seed, confidence=confidence),
    )


def nearest_ratio(distances: Float[np.ndarray, "s t"]) -> Float[np.ndarray, " s"]:
    """Distance to the nearest over the mean distance to the ``NEIGHBOURS`` nearest.

    0 for a copy, at most 1. An infinite distance is no neighbour; of one neighbour it says nothing
    and is 1, or 0 where that one is a copy.
    """
    nearest = np.sort(distances, axis=1)[:, :NEIGHBOURS]
    nearest = np.where(np.isfinite(nearest), nearest, np.nan)
    ratio: Float[np.ndarray, " s"] = nearest[:, 0] / np.maximum(np.nanmean(nearest, axis=1), 1e-12)
    return ratio


def _distances(
    synthetic: Float[np.ndarray, "s d"],
    real: Float[np.ndarray, "r d"],
    left_out: Bool[np.ndarray, "s r"] | None,
    name: str,
) -> Float[np.ndarray, "s r"]:
    """Euclidean; infinite where a pair is left out."""
    distances: Float[np.ndarray, "s r"] = cdist(synthetic, real)
    if left_out is None:
        return distances
    if left_out.shape != distances.shape:
        raise InputError(
            f"Pairs to leave out have the shape {left_out.shape}, but there are {len(synthetic)} "
            f"synthetic and {len(real)} {name} cases. Give one row for each synthetic case."
        )
    if left_out.all(axis=1).any():
        raise InputError(
            f"For a synthetic case every {name} case is left out, so it has no neighbour there. "
            "Give more cases."
        )
    return np.where(left_out, np.inf, distances)


def _check(**sets: Float[np.ndarray, "_ d"]) -> None:
    training = sets["training"]
    for name, features in sets.items():
        if features.ndim != 2 or features.shape[0] == 0 or features.shape[1:] != training.shape[1:]:
            raise InputError(
                f"{name} has the shape {features.shape}, training {training.shape}. Give one row "
                f"for each case, at least one, with the same features in all {len(sets)} sets."
            )
        if not np.isfinite(features).all():
            raise InputError(f"{name} holds a feature that is not finite. Look at its image first.")
