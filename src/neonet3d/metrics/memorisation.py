"""Does the generator copy its training cases? Nearest neighbours tell."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.distance import cdist

from neonet3d.errors import InputError
from neonet3d.metrics.interval import Interval, wilson


@dataclass(frozen=True)
class NearestNeighbours:
    """Nearest training and held-out case of each synthetic case.

    Attributes:
        share_nearer_training: Share of synthetic cases whose nearest training case is nearer than
            every held-out case, with its Wilson interval.
        expected_share: That share for a generator that copies nothing, t / (t + h): 0.5 where
            there are as many training as held-out cases.
        nearest_training: Row of the nearest training case, ``[s]``.
        training_distance: Distance to it, in the units of the features, ``[s]``.
        held_out_distance: Distance to the nearest held-out case, ``[s]``.
    """

    share_nearer_training: Interval
    expected_share: float
    nearest_training: Int[np.ndarray, " s"]
    training_distance: Float[np.ndarray, " s"]
    held_out_distance: Float[np.ndarray, " s"]


def nearest_neighbour_ratio(
    synthetic: Float[np.ndarray, "s d"],
    training: Float[np.ndarray, "t d"],
    held_out: Float[np.ndarray, "h d"],
    *,
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
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: A set is empty, the widths differ, or a feature is not finite.
    """
    for name, features in (
        ("synthetic", synthetic),
        ("training", training),
        ("held_out", held_out),
    ):
        if features.ndim != 2 or features.shape[0] == 0 or features.shape[1:] != training.shape[1:]:
            raise InputError(
                f"{name} has the shape {features.shape}, training {training.shape}. Give one row "
                "for each case, at least one, with the same features in all three sets."
            )
        if not np.isfinite(features).all():
            raise InputError(f"{name} holds a feature that is not finite. Look at its image first.")
    to_training = cdist(synthetic, training)
    training_distance = to_training.min(axis=1)
    held_out_distance = cdist(synthetic, held_out).min(axis=1)
    nearer = int(np.count_nonzero(training_distance < held_out_distance))
    return NearestNeighbours(
        share_nearer_training=wilson(nearer, synthetic.shape[0], confidence=confidence),
        expected_share=training.shape[0] / (training.shape[0] + held_out.shape[0]),
        nearest_training=to_training.argmin(axis=1),
        training_distance=training_distance,
        held_out_distance=held_out_distance,
    )
