"""Slices belong to cases. Resampling counts cases; this is the index from the one to the other."""

import numpy as np
from jaxtyping import Float, Int, Shaped

from neonet3d.errors import InputError

Features = Float[np.ndarray, "m d"]
Groups = Shaped[np.ndarray, " m"]
SyntheticFeatures = Float[np.ndarray, "k d"]
SyntheticGroups = Shaped[np.ndarray, " k"]


def case_of_slice(features: Features, groups: Groups | None, name: str) -> Int[np.ndarray, " m"]:
    """Number the cases from 0 and give the number of each slice's case.

    Args:
        features: One row for each slice, ``[m, d]``.
        groups: Case of each slice (any labels), ``[m]``; None where every row is a case.
        name: What to call these features in an error.

    Raises:
        InputError: Not a table, a feature is not finite, a length is wrong, or under two cases.
    """
    if features.ndim != 2:
        raise InputError(
            f"The {name} features have the shape {features.shape}. Give [slices, features]."
        )
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
        raise InputError(
            f"Row {row} of the {name} features is not finite. Look for nan in that slice."
        )
    labels = np.arange(len(features)) if groups is None else groups
    if labels.shape != (len(features),):
        raise InputError(
            f"The {name} features have {len(features)} rows but groups has the shape "
            f"{labels.shape}. Give the case of every row, as slice_features returns it."
        )
    names, case = np.unique(labels, return_inverse=True)
    if names.size < 2:
        raise InputError(
            f"The {name} features come from {names.size} case(s), but a distance between "
            "distributions needs at least 2. Add cases."
        )
    return case


def check_widths(real: Features, synthetic: Float[np.ndarray, "k e"]) -> None:
    """Refuse to compare features of two extractors.

    Raises:
        InputError: The two have different numbers of features.
    """
    if real.shape[1] != synthetic.shape[1]:
        raise InputError(
            f"Real slices have {real.shape[1]} features but synthetic ones {synthetic.shape[1]}. "
            "Extract both with one extractor."
        )
