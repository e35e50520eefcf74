"""Probabilities of a binary outcome: what calibration and decisions are computed from."""

from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from neonet3d.errors import InputError
from neonet3d.metrics.ranking import Labels, split_by_class

Probabilities = Float[np.ndarray, " n"]
Binning = Literal["equal-mass", "equal-width"]


def check_probabilities(
    labels: Labels, probabilities: Probabilities
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Labels and probabilities as 64-bit floats, after everything that can be wrong.

    Raises:
        InputError: Lengths differ, there is no case, a label is not 0 or 1, or a probability is
            not finite or lies outside [0, 1].
    """
    split_by_class(labels, probabilities, at_least=0)
    if not labels.size:
        raise InputError("There is no case at all. Check that the selection is not empty.")
    outside = np.flatnonzero((probabilities < 0) | (probabilities > 1))
    if outside.size:
        raise InputError(
            f"The probability of case {outside[0]} is {probabilities[outside[0]]:g}, and "
            f"{outside.size} case(s) in all lie outside 0 to 1. Give probabilities, not logits."
        )
    return np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)


def bin_probabilities(
    probabilities: Probabilities, n_bins: int, binning: Binning
) -> Int[np.ndarray, " n"]:
    """Number of the bin of each case, from 0 and without gaps: empty bins do not count.

    ``equal-mass`` cuts at the quantiles, so that bins hold about as many cases each; equal
    probabilities are never divided, so with many ties there are fewer bins. ``equal-width`` cuts
    [0, 1] into equal parts. A case on a cut belongs below it, as in scikit-learn's
    ``calibration_curve``.

    Raises:
        InputError: ``n_bins`` is below 1.
    """
    if n_bins < 1:
        raise InputError(f"n_bins is {n_bins}: give at least 1, commonly 10.")
    edges = np.linspace(0, 1, n_bins + 1)
    if binning == "equal-mass":
        edges = np.quantile(probabilities, edges)
    _, bins = np.unique(np.searchsorted(edges[1:-1], probabilities), return_inverse=True)
    return bins
