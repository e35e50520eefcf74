"""How scores of masks are written and printed; the commands that judge masks share it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from neonet3d.cli.options import interval_json, show_table

if TYPE_CHECKING:
    from neonet3d.segmentation.score import CaseScore
    from neonet3d.segmentation.score_summary import MeasureSummary

TOLERANCE_MM = 2.0  # of the surface Dice: about a voxel of a liver MR (ours)
MEDIAN_OF = "hd95_mm"  # infinite where a class was missed, so that only a median is a number
DIGITS = {"hd95_mm": 1, "volume_error_ml": 2, "volume_error_percent": 1}


def show_scores(
    scores: Sequence[CaseScore], out: Path, *, tolerance_mm: float, seed: int, as_json: bool
) -> dict[str, object]:
    """Write OUT/metrics.csv (cases) and OUT/summary.csv (classes); print the summary as a table.

    Returns:
        The same for JSON: each measure's interval by class (the median of distances), and the
        lesions.
    """
    from neonet3d.cohort.volume import write_atomically
    from neonet3d.segmentation.score import as_csv
    from neonet3d.segmentation.score_summary import summarise_scores, summary_csv

    rows = summarise_scores(scores, seed=seed)
    write_atomically(out / "metrics.csv", as_csv(scores).encode())
    write_atomically(out / "summary.csv", summary_csv(rows).encode())
    if not as_json:
        _print(rows, scores, tolerance_mm)
    result: dict[str, dict[str, object]] = {}
    for row in rows:
        of = row.median if row.measure == MEDIAN_OF and row.median else row.mean
        counts = {"scored": row.n, "infinite": row.n_infinite, "undefined": row.n_undefined}
        result.setdefault(row.measure, {})[row.class_] = interval_json(of) | counts
    return {"scored": len(scores), "tolerance_mm": tolerance_mm, **result}


def _print(
    rows: Sequence[MeasureSummary], scores: Sequence[CaseScore], tolerance_mm: float
) -> None:
    by = {(row.class_, row.measure): row for row in rows}
    titles = {
        "dice": "Dice",
        "cl_dice": "clDice",
        "hd95_mm": "HD95 in mm, median",
        "surface_dice": f"surface Dice at {tolerance_mm:g} mm",
        "volume_error_percent": "volume error in %",
    }
    measures = [m for m in titles if any(row.measure == m for row in rows)]
    patients = len({score.participant for score in scores})
    typer.echo(
        f"{len(scores)} scans of {patients} patients; in brackets 95 % intervals over "
        "patients: bootstrap, and Wilson's of the tumours found."
    )
    show_table(
        ("class", "scans with it", *(titles[measure] for measure in measures)),
        [
            (
                name,
                f"{by[name, 'dice'].n} of {len(scores)}",
                *(_cell(by.get((name, m)), by[name, "dice"].n) for m in measures),
            )
            for name in scores[0].classes
        ],
    )
    sensitivity = next((row.mean for row in rows if row.measure == "lesion_sensitivity"), None)
    false = next((row for row in rows if row.measure == "false_findings"), None)
    dice = next((row for row in rows if row.measure == "lesion_dice"), None)
    if sensitivity is not None and dice is not None:
        overlap = f" Dice of those found {_cell(dice, dice.n)}." if dice.n else ""
        typer.echo(
            f"Tumours: {sensitivity.n_positive} of {sensitivity.n} found, "
            f"{sensitivity.value:.3f} [{sensitivity.low:.3f}, {sensitivity.high:.3f}].{overlap}"
        )
    if false is not None:
        total = sum(score.lesions.n_false for score in scores if score.lesions)
        typer.echo(f"Findings that are no tumour: {total}, {_cell(false, false.n)} a scan.")


def _cell(row: MeasureSummary | None, n: int) -> str:
    """``0.812 [0.701, 0.889]``, and of how many where it is not ``n``, or how many are infinite."""
    if row is None or not row.n:
        return "-"
    of = row.median if row.measure == MEDIAN_OF and row.median else row.mean
    digits = DIGITS.get(row.measure, 3)
    value, low, high = (f"{x:.{digits}f}" for x in (of.value, of.low, of.high))
    notes = [f"{row.n_infinite} infinite"] if row.n_infinite else []
    notes += [f"n={row.n}"] if row.n != n else []
    return f"{value} [{low}, {high}]" + (f" ({', '.join(notes)})" if notes else "")
