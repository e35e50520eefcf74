"""Does a map point at where the truth is? The pointing game, and the AUC over voxels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from neonet3d.metrics.discrimination import auc
from neonet3d.types import Triple


def hits(
    importance: Float[np.ndarray, "x y z"],
    truth: Bool[np.ndarray, "x y z"],
    *,
    spacing_mm: Triple,
    tolerance_mm: float,
) -> bool:
    """Whether the map's largest value lies in the truth or within ``tolerance_mm`` of it.

    The pointing game (Zhang et al. 2018, IJCV 126:1084).

    Raises:
        ValueError: an empty truth.
    """
    _require(truth)
    distance = ndimage.distance_transform_edt(~truth, sampling=spacing_mm)
    return bool(distance.flat[int(importance.argmax())] <= tolerance_mm)


def chance_of_hit(
    truth: Bool[np.ndarray, "x y z"],
    within: Bool[np.ndarray, "x y z"],
    *,
    spacing_mm: Triple,
    tolerance_mm: float,
) -> float:
    """Share of ``within`` that would be a hit: what a map without any knowledge scores.

    Raises:
        ValueError: an empty truth.
    """
    _require(truth)
    distance = ndimage.distance_transform_edt(~truth, sampling=spacing_mm)
    return float((distance[within] <= tolerance_mm).mean())


def voxel_auc(
    importance: Float[np.ndarray, "x y z"],
    truth: Bool[np.ndarray, "x y z"],
    within: Bool[np.ndarray, "x y z"],
) -> float:
    """AUC of the map's values for the truth among the voxels of ``within``.

    Raises:
        InputError: all of them, or none, are truth.
    """
    return auc(truth[within].astype(np.int64), importance[within])


def _require(truth: Bool[np.ndarray, "x y z"]) -> None:
    if not truth.any():
        raise ValueError("there is no truth to point at")
