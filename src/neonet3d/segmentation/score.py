"""How good a mask is: overlap, surfaces in mm, volumes, vessels and lesions of one case."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from neonet3d.cohort.case import Case
from neonet3d.cohort.volume import Volume
from neonet3d.metrics.box import bounding_box
from neonet3d.metrics.centreline import cl_dice
from neonet3d.metrics.lesions import LesionCount, count_lesions
from neonet3d.metrics.overlap import dice
from neonet3d.metrics.surface import surface_scores
from neonet3d.segmentation.lesions import LESION_CLASS
from neonet3d.types import LabelSchema

VESSELS = ("vein", "veins", "vessel", "vessels", "artery", "arteries")


@dataclass(frozen=True)
class ClassScore:
    """One class in one case; nan where neither mask holds it.

    Attributes:
        dice: ``metrics.overlap.dice``.
        cl_dice: ``metrics.centreline.cl_dice``; None for what is no vessel.
        hd95_mm, surface_dice: ``metrics.surface``; the distance is infinite where one mask lacks
            the class.
        volume_error_ml: predicted volume minus reference volume.
        volume_error_percent: the same as a share of the reference volume; nan where that is 0.
    """

    dice: float
    cl_dice: float | None
    hd95_mm: float
    surface_dice: float
    volume_error_ml: float
    volume_error_percent: float

    def as_mapping(self) -> dict[str, float]:
        """Every measure that the class has, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class CaseScore:
    """All classes of one case, and its lesions where the schema has a tumour."""

    case: str
    participant: str
    classes: dict[str, ClassScore]
    lesions: LesionCount | None


def is_vessel(name: str) -> bool:
    """Whether a class is a vessel: its last word is vein, vessel or artery, or their plural."""
    return name.lower().replace("-", "_").replace(" ", "_").rpartition("_")[2] in VESSELS


def score_case(
    case: Case, found: Volume, drawn: Volume, schema: LabelSchema, *, tolerance_mm: float
) -> CaseScore:
    """Compare a predicted mask with the reference on the same grid.

    Args:
        case: whose scan it is.
        tolerance_mm: of the surface Dice.
    """
    labels = {name: value for name, value in schema.as_mapping().items() if value > 0}
    prediction, reference = _cut(found, drawn)
    overlaps = dice(prediction, reference, labels)
    surfaces = surface_scores(
        prediction, reference, labels, spacing_mm=drawn.spacing_mm, tolerance_mm=tolerance_mm
    )
    classes = {}
    for name, value in labels.items():
        ours, theirs = prediction == value, reference == value
        n_drawn = int(theirs.sum())
        error = int(ours.sum()) - n_drawn
        classes[name] = ClassScore(
            dice=overlaps[name],
            cl_dice=cl_dice(ours, theirs, drawn.spacing_mm) if is_vessel(name) else None,
            hd95_mm=surfaces[name].hd95_mm,
            surface_dice=surfaces[name].surface_dice,
            volume_error_ml=error * drawn.voxel_volume_mm3 / 1000
            if n_drawn or error
            else float("nan"),
            volume_error_percent=100 * error / n_drawn if n_drawn else float("nan"),
        )
    lesions = None
    if LESION_CLASS in labels:
        value = labels[LESION_CLASS]
        lesions = count_lesions(prediction == value, reference == value)
    return CaseScore(case.name, case.participant, classes, lesions)


def _cut(*masks: Volume) -> list[np.ndarray]:
    """Both label maps cut to the box that holds all of either: most of a scan is background."""
    box = bounding_box(np.logical_or.reduce([mask.data > 0 for mask in masks]))
    return [mask.data[box or (slice(0, 1),) * 3] for mask in masks]


def as_csv(scores: Sequence[CaseScore]) -> str:
    """One row per case: every measure of every class, then the lesions.

    nan says that neither mask holds the class (or the reference does not, for a share of its
    volume), inf that only one does and so has no surface to measure to.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = [f"{n}_{m}" for n, score in scores[0].classes.items() for m in score.as_mapping()]
    if scores[0].lesions:
        columns += ["lesions", "lesions_found", "lesions_false", "lesions_found_dice"]
    writer.writerow(["case", "participant_id", *columns])
    for score in scores:
        row = [f"{v:.6g}" for of in score.classes.values() for v in of.as_mapping().values()]
        if score.lesions:
            found = score.lesions
            mean = f"{np.mean(found.dice):.6g}" if found.dice else "nan"
            row += [str(found.n_reference), str(found.n_found), str(found.n_false), mean]
        writer.writerow([score.case, score.participant, *row])
    return stream.getvalue()
