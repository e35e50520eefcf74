"""neonet3d study, demo and report: whole experiments and what comes out of them."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neonet3d.cli.fidelity import show_fidelity
from neonet3d.cli.options import (
    AsJson,
    CohortPath,
    ConfigFile,
    Overrides,
    Preset,
    Seed,
    SplitsFile,
    interval_text,
    resolve,
    show,
    show_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neonet3d.cohort.cohort import Cohort
    from neonet3d.cohort.folds import Fold
    from neonet3d.config import Config

app = typer.Typer(help="Cross-validated experiments with a report.", no_args_is_help=True)
RunPath = Annotated[
    Path, typer.Argument(help="Run folder; an interrupted run in it goes on.", show_default=False)
]


@app.command()
def pni(
    cohort: CohortPath,
    out: RunPath,
    splits: SplitsFile = None,
    leaky: Annotated[
        bool,
        typer.Option(
            "--leaky",
            help="One arm more: the first, its encoder and generator trained on all patients, to "
            "show how much AUC that pretends.",
        ),
    ] = False,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Segment, crop, generate, balance and classify in every fold; pooled statistics; a report."""
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.cohort.splits import read_splits
    from neonet3d.study.arms import with_leaky_twin

    settings = resolve(preset, config, overrides, seed)
    if leaky:
        settings = with_leaky_twin(settings)
    opened = Cohort.open(cohort)
    _ = opened.outcomes  # refused before the run folder is made
    folds = None if splits is None else read_splits(splits, opened)
    title = "Perineural invasion, cross-validated"
    _run(out, settings, lambda: opened, title, folds=folds, as_json=as_json)


def demo(
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted run goes on.")] = Path(
        "runs/demo"
    ),
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Everything on a phantom cohort, cross-validated: prints a table and where the report is."""
    settings = resolve("demo", config, overrides, seed)

    def make_cohort() -> Cohort:
        from neonet3d.cohort.cohort import Cohort
        from neonet3d.cohort.phantom.writer import write_phantom_cohort
        from neonet3d.config import fingerprint
        from neonet3d.engine.progress import progress
        from neonet3d.engine.run import once

        def build(folder: Path) -> None:
            with progress("phantom patients", settings.phantom.n) as advance:
                write_phantom_cohort(folder, settings.phantom, seed=settings.seed, advance=advance)

        key = fingerprint("phantom", settings.phantom, settings.seed)
        return Cohort.open(once(out / "cohort", key, build))

    _run(out, settings, make_cohort, "The whole way on a phantom", as_json=as_json)


def report(run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)]) -> None:
    """Write report.html of a finished run again."""
    from neonet3d.report.html import write_report

    typer.echo(f"Report: {write_report(run)}")


def _run(
    out: Path,
    settings: Config,
    cohort: Callable[[], Cohort],
    title: str,
    *,
    as_json: bool,
    folds: Sequence[Fold] | None = None,
) -> None:
    from neonet3d.engine.run import RunFolder, command_line
    from neonet3d.report.html import write_report
    from neonet3d.study.pni import run_pni_study

    started = time.monotonic()
    with RunFolder.open(out, settings, command=command_line()) as run:
        with run.timed("phantom cohort"):
            patients = cohort()
        results = run_pni_study(patients, run, title=title, folds=folds)
        run.update_manifest(
            wall_seconds=round(time.monotonic() - started, 1),
            peak_memory_gib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        )
        page = write_report(out)
    if not as_json:
        show_table(
            ("classifier", "pooled AUC [95 % DeLong]"),
            [(arm.title, interval_text(arm.auc)) for arm in results.arms],
        )
        if results.ceiling_auc is not None:
            typer.echo(f"Best reachable on these patients: {interval_text(results.ceiling_auc)}")
        show_table(
            ("NeoSeg", "Dice [95 % bootstrap]"),
            [(name, interval_text(value)) for name, value in results.segmentation.items()],
        )
        show_fidelity(results.fidelity)
    show(
        {"report": str(page), "results": str(out / "results.json")}
        | {"auc": {arm.key: arm.auc.value for arm in results.arms}},
        as_json=as_json,
        sentence=f"Report: {page}",
    )
