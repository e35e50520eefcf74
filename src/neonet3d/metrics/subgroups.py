"""Does a model work as well in every group: small and large tumours, each centre, each sex?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neonet3d.errors import InputError
from neonet3d.metrics.discrimination import delong
from neonet3d.metrics.interval import Interval
from neonet3d.metrics.ranking import Labels, Scores, split_by_class

AT_LEAST = 5
"""Cases of each class that a group needs for a figure; ours. In simulations of normal scores with
an AUC of 0.6, the DeLong interval of 5 positive against 40 negative cases holds it 91 % of the
time, that of 2 against 40 only 80 %; a test measures it at 0.7."""


@dataclass(frozen=True)
class Subgroup:
    """One row of the table.

    Attributes:
        name: Of the group.
        n: Number of cases.
        n_positive: How many of them are positive.
        auc: With DeLong's interval; None under ``AT_LEAST`` cases of a class.
    """

    name: str
    n: int
    n_positive: int
    auc: Interval | None


def subgroup_aucs(
    labels: Labels, scores: Scores, groups: Sequence[str], *, confidence: float = 0.95
) -> tuple[Subgroup, ...]:
    """AUC within each group, in the order in which the groups first occur.

    Groups are described, not tested: among several, one will look worse by chance, and an interval
    that holds 0.5 shows that a group is small, not that the model fails there. An AUC within a
    group compares its own cases only; a score that is higher all over in one centre does not show.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        scores: Finite, higher means more likely positive, ``[n]``.
        groups: Group of each case, ``[n]``; name those that are not known ("unknown").
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: Lengths differ, or a score is not finite.
    """
    split_by_class(labels, scores, at_least=0)
    if len(groups) != labels.size:
        raise InputError(
            f"There are {labels.size} cases but {len(groups)} groups. Give the group of each case."
        )
    names = np.array([str(name) for name in groups], dtype=object)
    rows = []
    for name in dict.fromkeys(names):
        inside = names == name
        n, n_positive = int(inside.sum()), int(labels[inside].sum())
        enough = min(n_positive, n - n_positive) >= AT_LEAST
        value = delong(labels[inside], scores[inside], confidence) if enough else None
        rows.append(Subgroup(name, n, n_positive, value))
    return tuple(rows)


def tercile_groups(values: Float[np.ndarray, " n"], unit: str) -> tuple[str, ...]:
    """Name the third that each value lies in, such as ``lowest third (1.2 to 12.5 ml)``.

    The cuts are the terciles of these values. Equal values stay together, so thirds may differ in
    size, and with many ties one may be missing. nan is "unknown".

    Args:
        values: One for each case, such as tumour volumes, ``[n]``.
        unit: Written behind the limits.

    Raises:
        InputError: A value is infinite, or none is known.
    """
    known = ~np.isnan(values)
    if np.isinf(values).any() or not known.any():
        raise InputError(
            "To cut values into thirds takes finite values, at least one of them known. Mark what "
            "is not known as nan."
        )
    third = np.searchsorted(np.quantile(values[known], [1 / 3, 2 / 3]), values)
    names = {}
    for k in np.unique(third[known]):
        inside = values[known & (third == k)]
        limits = f"{inside.min():.3g} to {inside.max():.3g} {unit}"
        names[k] = f"{('lowest', 'middle', 'highest')[k]} third ({limits})"
    return tuple(names[k] if seen else "unknown" for k, seen in zip(third, known, strict=True))
