"""neonet3d cohort: phantom, import, check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neonet3d.cli.options import (
    AsJson,
    CohortPath,
    ConfigFile,
    OutPath,
    Overrides,
    Preset,
    Seed,
    resolve,
    show,
    show_table,
)

if TYPE_CHECKING:
    from neonet3d.cohort.mend import Mended

app = typer.Typer(help="Make, import and check cohorts.", no_args_is_help=True)

SERIES_COLUMNS = (
    "patient",
    "study",
    "number",
    "description",
    "modality",
    "images",
    "size",
    "spacing_mm",
    "orientation",
    "transfer_syntax",
    "usable",
)


@app.command()
def phantom(
    out: OutPath,
    n: Annotated[int | None, typer.Option(help="Patients; the preset's by default.", min=1)] = None,
    roi: Annotated[
        bool, typer.Option("--roi", help="Only the window around the tumour (roi of the preset).")
    ] = False,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Write a phantom cohort: whole-liver scans with masks, a PNI label and the true parameters."""
    from neonet3d.cohort.phantom.writer import write_phantom_cohort
    from neonet3d.engine.progress import progress

    settings = resolve(preset, config, overrides, seed)
    wanted = settings.phantom if n is None else settings.phantom.model_copy(update={"n": n})
    with progress("phantom patients", wanted.n) as advance:
        cohort = write_phantom_cohort(
            out,
            wanted,
            seed=settings.seed,
            roi=settings.roi if roi else None,
            advance=advance,
        )
    positive = int(cohort.outcomes.sum())
    show(
        {"cohort": str(out), "cases": len(cohort), "positive": positive},
        as_json=as_json,
        sentence=f"{out}: {len(cohort)} phantom patients, {positive} with perineural invasion.",
    )


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of DICOM files (any depth), NIfTI file or folder, nnU-Net or Medical "
            "Segmentation Decathlon folder, or MedMNIST3D .npz.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(
            help="Folder to write to; not needed with --list-series.", show_default=False
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV, TSV or XLSX with a column 'case' (for DICOM, 'PatientID'). "
            "TABLE.xlsx#SHEET chooses a sheet.",
            show_default=False,
        ),
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            help="Column to predict (or what MedMNIST's label 1 means).", show_default=False
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Masks that lie apart. For NIfTI: file, or folder of the same names. For DICOM: "
            "SEG, or NIfTI named by PatientID; laid on the scan by world coordinates.",
            show_default=False,
        ),
    ] = None,
    label_map: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS=VALUE,...",
            help="Classes of the masks to keep, by value, name or segment: "
            "'liver=5,portal_vein=25'. The rest becomes background.",
            show_default=False,
        ),
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(help="nnU-Net: the channel, by name or number.", show_default=False),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(
            help="DICOM: the series of each patient, by part of its description, number or UID.",
            show_default=False,
        ),
    ] = None,
    keep_ids: Annotated[
        bool, typer.Option("--keep-ids", help="DICOM: write PatientIDs as participant ids.")
    ] = False,
    list_series: Annotated[
        bool,
        typer.Option(
            "--list-series", help="DICOM: print every series and whether it can be used; no import."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring data from elsewhere into a cohort folder; every file is read and verified."""
    from neonet3d.cohort.importers import ImportOptions, count_headers, plan_import
    from neonet3d.engine.progress import progress
    from neonet3d.types import no_advance

    if list_series:
        _show_series(source, keep_ids=keep_ids, as_json=as_json)
        return
    if out is None:
        raise typer.BadParameter("OUT is missing: the folder to write to")
    options = ImportOptions(labels, outcome, masks, label_map, channel, series, keep_ids)
    headers = count_headers(source)
    with progress("reading headers", headers) if headers else nullcontext(no_advance) as advance:
        plan = plan_import(source, options, advance=advance)
    with progress("importing", plan.n_cases) as advance:
        cohort = plan.write(out, advance=advance)
    masked = sum(case.mask_path is not None for case in cohort)
    some_masks = "" if masked in (0, len(cohort)) else f" ({masked} with masks)"
    show(
        {
            "cohort": str(out),
            "cases": len(cohort),
            "masks": masked,
            "classes": list(cohort.schema.names),
            "outcome": cohort.outcome_name,
        },
        as_json=as_json,
        sentence=f"{out}: {len(cohort)} cases{some_masks}; "
        f"classes {', '.join(cohort.schema.names)}; outcome {cohort.outcome_name or 'none'}.",
    )


def _show_series(source: Path, *, keep_ids: bool, as_json: bool) -> None:
    from neonet3d.cohort.importers import count_headers, recognise
    from neonet3d.cohort.importers.dicom import list_series
    from neonet3d.engine.progress import progress
    from neonet3d.errors import InputError

    layout = recognise(source)
    if layout != "DICOM":
        raise InputError(f"{source} is {layout} data, which has no series. Import it as it is.")
    with progress("reading headers", count_headers(source)) as advance:
        listed, others = list_series(source, advance=advance)
    rows = [entry.row(keep_ids=keep_ids) for entry in listed]
    if not as_json:
        show_table([column.replace("_", " ") for column in SERIES_COLUMNS], map(_cells, rows))
    usable = sum(entry.fault is None for entry in listed)
    show(
        {"series": rows, "usable": usable, "files_not_dicom": others},
        as_json=as_json,
        sentence=f"{len(listed)} series, {usable} usable; {others} files are no DICOM.",
    )


def _cells(row: Mapping[str, object]) -> list[str]:
    """A row of the table of series; lists as 1x1x3, and yes or why not."""
    spacing = row["spacing_mm"]
    texts = {
        "spacing_mm": "x".join(f"{s:g}" for s in spacing) if isinstance(spacing, list) else "",
        "orientation": str(row["orientation"] or ""),
        "usable": f"no: {row['why_not']}" if row["why_not"] else "yes",
    }
    return [texts.get(column, str(row[column])) for column in SERIES_COLUMNS]


@app.command()
def check(
    cohort: CohortPath,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT",
            help="Write a copy to OUT in which is mended what has one right answer; the findings "
            "are then those of the copy.",
            show_default=False,
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="Folds that each class must have patients for.", min=2)
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a cohort, case by case, with the mend. Exit status 2 on errors."""
    from neonet3d.cohort.check import check_folder
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.cohort.mend import mend_cohort
    from neonet3d.engine.progress import progress

    opened, faults = Cohort.survey(cohort)
    mended: list[Mended] = []
    if fix is not None and not faults:  # rows that cannot be used have no copy; they are listed
        with progress("mending", len(opened)) as advance:
            mended = mend_cohort(cohort, fix, advance)
        cohort = fix
    with progress("checking", len(opened)) as advance:
        findings = check_folder(cohort, advance, n_folds=folds)
    count = Counter(finding.severity for finding in findings)
    if not as_json and mended:
        show_table(
            ("mended", "file", "what"), [(m.case or "(cohort)", m.file, m.what) for m in mended]
        )
    if not as_json and findings:
        show_table(
            ("", "case", "problem", "mend"),
            [(f.severity, f.case or "(cohort)", f.problem, f.mend) for f in findings],
        )
    sentence = (
        f"{len(opened)} cases checked: {count['error']} errors, {count['warning']} warnings, "
        f"{count['note']} notes."
    )
    if fix is not None:
        sentence += (
            " Nothing was written: mend the table first."
            if faults
            else f"\n{fix}: the mended copy; {len(mended)} things put right."
        )
    show(
        {
            "cases": len(opened),
            "errors": count["error"],
            "warnings": count["warning"],
            "notes": count["note"],
            "findings": [asdict(finding) for finding in findings],
            "mended": [asdict(entry) for entry in mended],
        },
        as_json=as_json,
        sentence=sentence,
    )
    if count["error"]:
        raise typer.Exit(2)
