"""Overlap of two label maps."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Integer

from neonet3d.errors import InputError


def dice(
    prediction: Integer[np.ndarray, "*grid"] | Bool[np.ndarray, "*grid"],
    reference: Integer[np.ndarray, "*grid"] | Bool[np.ndarray, "*grid"],
    labels: Mapping[str, int],
) -> dict[str, float]:
    """Dice coefficient of each class, 2 |P and R| / (|P| + |R|), on two label maps of one grid.

    Empty masks: a class that neither map holds has no overlap to measure and gets **nan**, which
    means leave out (``numpy.nanmean``, ``bootstrap_mean``); a tumour-free case that is called
    tumour-free neither helps nor harms. A class that only one map holds gets **0**, however small
    the mask: a false alarm and a miss both count in full.

    Voxel counts are compared, so that the spacing cancels and does not enter.

    Source: Dice, Ecology 26 (1945) 297.

    Args:
        prediction: Integer label map of any rank.
        reference: Integer label map of the same shape.
        labels: Name to label value, as ``{"liver": 1, "tumour": 4}``; other values are ignored.

    Returns:
        Name to Dice in [0, 1] or nan, in the order of ``labels``.

    Raises:
        InputError: The shapes differ, or a map does not hold integers.
    """
    if prediction.shape != reference.shape:
        raise InputError(
            f"The prediction has the shape {prediction.shape} but the reference {reference.shape}. "
            "Bring both to one grid before comparing them."
        )
    for name, label_map in (("prediction", prediction), ("reference", reference)):
        if label_map.dtype.kind not in "iub":
            raise InputError(
                f"The {name} holds {label_map.dtype}, not integer labels. Threshold or round it "
                "first, so that every voxel has one label."
            )
    scores = {}
    for name, value in labels.items():
        in_prediction, in_reference = prediction == value, reference == value
        total = np.count_nonzero(in_prediction) + np.count_nonzero(in_reference)
        shared = np.count_nonzero(in_prediction & in_reference)
        scores[name] = 2 * shared / total if total else float("nan")
    return scores
