"""What the scores of many cases say together, with no case lost on the way."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neonet3d.metrics.clustered import bootstrap_patients, wilson_patients
from neonet3d.metrics.interval import Interval
from neonet3d.segmentation.lesions import LESION_CLASS
from neonet3d.segmentation.score import CaseScore

COLUMNS = (
    *("class", "measure", "unit", "n", "n_infinite", "n_undefined", "patients"),
    *("mean", "mean_low", "mean_high", "median", "median_low", "median_high", "interval"),
)


@dataclass(frozen=True)
class MeasureSummary:
    """One measure of one class over all cases.

    Attributes:
        class_: name of the class.
        measure: field of ``ClassScore``, or ``lesion_sensitivity``, ``lesion_dice`` (of the lesions
            found) and ``false_findings`` (a scan).
        mean: Over the values that are numbers; nan where one is infinite, since to leave that out
            would flatter.
        median: Over the values that are defined, infinity as the worst; None for a share.
        n: How many values are defined, ``n_infinite`` of them infinite.
        n_undefined: Cases without a value: neither mask holds the class, or the reference is empty
            where the measure is a share of it.
        unit: What is counted by ``n``.
        patients: From how many patients they are.
    """

    class_: str
    measure: str
    mean: Interval
    median: Interval | None
    n: int
    n_infinite: int
    n_undefined: int
    unit: Literal["scan", "lesion"]
    patients: int


def summarise_scores(scores: Sequence[CaseScore], *, seed: int) -> tuple[MeasureSummary, ...]:
    """Every measure of every class, then the lesions; intervals resample patients."""
    patients = [score.participant for score in scores]
    rows = []
    for name, first in scores[0].classes.items():
        for measure in first.as_mapping():
            values = np.array([s.classes[name].as_mapping()[measure] for s in scores])
            rows.append(_summary(name, measure, values, patients, seed, "scan"))
    return (*rows, *_lesions(scores, seed))


def _summary(
    class_: str,
    measure: str,
    values: np.ndarray,
    patients: Sequence[str],
    seed: int,
    unit: Literal["scan", "lesion"],
) -> MeasureSummary:
    n_infinite, n_undefined = int(np.isinf(values).sum()), int(np.isnan(values).sum())
    numbers = np.full(values.size, np.nan) if n_infinite else values
    median = bootstrap_patients(values, patients, seed, "median")
    return MeasureSummary(
        class_=class_,
        measure=measure,
        mean=bootstrap_patients(numbers, patients, seed, "mean"),
        median=median,
        n=values.size - n_undefined,
        n_infinite=n_infinite,
        n_undefined=n_undefined,
        unit=unit,
        patients=median.n,
    )


def _lesions(scores: Sequence[CaseScore], seed: int) -> list[MeasureSummary]:
    """Share of lesions found, how well, and false findings of a scan."""
    counted = [(s.participant, s.lesions) for s in scores if s.lesions is not None]
    if not counted:
        return []
    patients = sorted({patient for patient, _ in counted})
    there = np.array([sum(c.n_reference for p, c in counted if p == q) for q in patients])
    found = np.array([sum(c.n_found for p, c in counted if p == q) for q in patients])
    share = wilson_patients(found, there)
    rows = []
    if share is not None:
        rows.append(
            MeasureSummary(
                class_=LESION_CLASS,
                measure="lesion_sensitivity",
                mean=share,
                median=None,
                n=share.n,
                n_infinite=0,
                n_undefined=0,
                unit="lesion",
                patients=int((there > 0).sum()),
            )
        )
    dices = [(patient, value) for patient, count in counted for value in count.dice]
    rows.append(
        _summary(
            LESION_CLASS,
            "lesion_dice",
            np.array([value for _, value in dices]),
            [patient for patient, _ in dices],
            seed,
            "lesion",
        )
    )
    false = np.array([count.n_false for _, count in counted], dtype=float)
    whose = [patient for patient, _ in counted]
    rows.append(_summary(LESION_CLASS, "false_findings", false, whose, seed, "scan"))
    return rows


def summary_csv(rows: Sequence[MeasureSummary]) -> str:
    """One row per class and measure; a mean, a median and their 95 % intervals."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        ends = [
            f"{value:.6g}"
            for of in (row.mean, row.median)
            for value in ((of.value, of.low, of.high) if of else (np.nan,) * 3)
        ]
        counts = (row.unit, row.n, row.n_infinite, row.n_undefined, row.patients)
        writer.writerow([row.class_, row.measure, *counts, *ends, row.mean.method])
    return stream.getvalue()
