"""neonet3d cohort: phantom, import, check."""

from __future__ import annotations

from collections import Counter
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


@app.command()
def phantom(
    out: OutPath,
    n: Annotated[int | None, typer.Option(help="Patients; the preset's by default.", min=1)] = None,
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
        cohort = write_phantom_cohort(out, wanted, seed=settings.seed, advance=advance)
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
            help="Medical Segmentation Decathlon folder, or MedMNIST3D .npz.", show_default=False
        ),
    ],
    out: OutPath,
    labels: Annotated[
        Path | None, typer.Option(help="CSV or TSV with a column 'case'.", show_default=False)
    ] = None,
    outcome: Annotated[
        str | None,
        typer.Option(
            help="Column to predict (or what MedMNIST's label 1 means).", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring data from elsewhere into a cohort folder; every file is read and verified."""
    from neonet3d.cohort.importers import count_cases, import_cohort
    from neonet3d.engine.progress import progress

    with progress("importing", count_cases(source)) as advance:
        cohort = import_cohort(source, out, labels=labels, outcome=outcome, advance=advance)
    show(
        {
            "cohort": str(out),
            "cases": len(cohort),
            "classes": list(cohort.schema.names),
            "outcome": cohort.outcome_name,
        },
        as_json=as_json,
        sentence=f"{out}: {len(cohort)} cases; classes {', '.join(cohort.schema.names)}; "
        f"outcome {cohort.outcome_name or 'none'}.",
    )


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
