"""neonet3d cohort: phantom, import, check."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

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

app = typer.Typer(help="Make, import and check cohorts.", no_args_is_help=True)


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
def check(cohort: CohortPath, as_json: AsJson = False) -> None:
    """Say what is wrong with a cohort, case by case, with the mend. Exit status 2 on errors."""
    from neonet3d.cohort.check import check_cohort
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.engine.progress import progress

    opened = Cohort.open(cohort)
    with progress("checking", len(opened)) as advance:
        findings = check_cohort(opened, advance)
    errors = sum(finding.severity == "error" for finding in findings)
    if not as_json and findings:
        show_table(
            ("", "case", "problem", "mend"),
            [(f.severity, f.case or "(cohort)", f.problem, f.mend) for f in findings],
        )
    show(
        {
            "cases": len(opened),
            "errors": errors,
            "warnings": len(findings) - errors,
            "findings": [asdict(finding) for finding in findings],
        },
        as_json=as_json,
        sentence=f"{len(opened)} cases checked: "
        f"{errors} errors, {len(findings) - errors} warnings.",
    )
    if errors:
        raise typer.Exit(2)
