"""How good masks are, case by case: overlap, surfaces in mm, volumes, and lesions found."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from neonet3d.cohort.volume import Volume
from neonet3d.metrics.interval import Interval, bootstrap_mean, wilson
from neonet3d.metrics.lesions import LesionCount, count_lesions
from neonet3d.metrics.overlap import dice
from neonet3d.metrics.surface import surface_scores
from neonet3d.types import LabelSchema

TOLERANCE_MM = 2.0  # of the surface Dice: about a voxel of a liver MR (ours)
LESION_CLASS = "tumour"


@dataclass(frozen=True)
class ClassScore:
    """One class in one case; nan where neither mask holds it.

    Attributes:
        dice: ``metrics.overlap.dice``.
        hd95_mm, surface_dice: ``metrics.surface``, at ``TOLERANCE_MM``.
        volume_error_ml: predicted volume minus reference volume.
    """

    dice: float
    hd95_mm: float
    surface_dice: float
    volume_error_ml: float


MEASURES = tuple(field.name for field in fields(ClassScore))


@dataclass(frozen=True)
class CaseScore:
    """All classes of one case, and its lesions where the schema has a tumour."""

    case: str
    classes: dict[str, ClassScore]
    lesions: LesionCount | None


def score_case(case: str, found: Volume, drawn: Volume, schema: LabelSchema) -> CaseScore:
    """Compare a predicted mask with the reference on the same grid."""
    labels = {name: value for name, value in schema.as_mapping().items() if value > 0}
    overlaps = dice(found.data, drawn.data, labels)
    surfaces = surface_scores(
        found.data,
        drawn.data,
        labels,
        spacing_mm=drawn.spacing_mm,
        tolerance_mm=TOLERANCE_MM,
    )
    classes = {}
    for name, value in labels.items():
        n_found, n_drawn = (int((mask.data == value).sum()) for mask in (found, drawn))
        error_ml = (n_found - n_drawn) * drawn.voxel_volume_mm3 / 1000
        classes[name] = ClassScore(
            overlaps[name],
            surfaces[name].hd95_mm,
            surfaces[name].surface_dice,
            error_ml if n_found or n_drawn else np.nan,
        )
    lesions = None
    if LESION_CLASS in labels:
        value = labels[LESION_CLASS]
        lesions = count_lesions(found.data == value, drawn.data == value)
    return CaseScore(case, classes, lesions)


def mean_of(scores: Sequence[CaseScore], name: str, measure: str, *, seed: int) -> Interval:
    """Mean of a measure of one class with its bootstrap interval; n leaves out nan."""
    return bootstrap_mean(np.array([getattr(s.classes[name], measure) for s in scores]), seed)


def sensitivity(scores: Sequence[CaseScore]) -> Interval | None:
    """Share of lesions found with Wilson's interval, over all cases; None without lesions."""
    counts = [score.lesions for score in scores if score.lesions is not None]
    n = sum(count.n_reference for count in counts)
    return wilson(sum(count.n_found for count in counts), n) if n else None


def as_csv(scores: Sequence[CaseScore]) -> str:
    """One row per case: every measure of every class, then the lesions."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = list(scores[0].classes)
    lesions = ("lesions", "lesions_found", "lesions_false") if scores[0].lesions else ()
    writer.writerow(["case", *(f"{name}_{m}" for name in names for m in MEASURES), *lesions])
    for score in scores:
        values = [f"{v:.6g}" for name in names for v in astuple(score.classes[name])]
        counts = astuple(score.lesions) if score.lesions else ()
        writer.writerow([score.case, *values, *counts])
    return stream.getvalue()
