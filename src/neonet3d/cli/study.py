"""neonet3d study, demo and report: whole experiments and what comes out of them."""

from __future__ import annotations

import time
from contextlib import nullcontext
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
    from contextlib import AbstractContextManager

    from neonet3d.cohort.cohort import Cohort
    from neonet3d.cohort.folds import Fold
    from neonet3d.config import Config
    from neonet3d.engine.executor import Executor

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
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes on this machine that share the stages, a GPU or an equal part of the "
            "cores each. By default everything is done one after the other.",
            show_default=False,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask scheduler whose workers share the stages, such as tcp://10.0.0.1:8786.",
            show_default=False,
        ),
    ] = None,
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
    if scheduler is not None:  # its workers have a working directory of their own
        cohort, out = cohort.resolve(), out.resolve()
    opened = Cohort.open(cohort)
    _ = opened.outcomes  # refused before the run folder is made
    folds = None if splits is None else read_splits(splits, opened)
    title = "Perineural invasion, cross-validated"
    with _executor(workers, scheduler) as execute:
        _run(out, settings, lambda: opened, title, folds=folds, execute=execute, as_json=as_json)


@app.command()
def repeats(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders of 'study pni' that differ in --seed alone.", show_default=False
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Repeated cross-validation: what several runs of one study say together.

    Every run divides the patients anew. The interval of the pooled AUC counts every patient once;
    arms are compared by the corrected resampled t-test (Nadeau and Bengio) over all folds.
    """
    from neonet3d.study.repeats import require_one_configuration, summarise_repeats
    from neonet3d.study.results import StudyResults

    require_one_configuration(runs)
    arms = summarise_repeats([StudyResults.read(run) for run in runs])
    if not as_json:
        show_table(
            ("classifier", "pooled AUC [95 % DeLong]", "of each run", "first less this", "p"),
            [
                (
                    arm.title,
                    interval_text(arm.pooled),
                    " ".join(f"{value:.3f}" for value in arm.repeat_aucs),
                    "" if arm.difference is None else interval_text(arm.difference),
                    "" if arm.p_value is None else f"{arm.p_value:.3f}",
                )
                for arm in arms
            ],
        )
    show(
        {"runs": [str(run) for run in runs], "arms": [arm.model_dump() for arm in arms]},
        as_json=as_json,
        sentence=f"{len(runs)} repeats.",
    )


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


def report(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    cases: Annotated[
        bool,
        typer.Option(
            "--cases",
            help="A page for the held-out cases of each fold too: where the classifier looks, and "
            "what the generator believes the outcome changes.",
        ),
    ] = False,
) -> None:
    """Write report.html, model card and checklists of a finished run again.

    Of 'study augmentation' that is report.md with its curve.
    """
    from neonet3d.report.augmentation import write_augmentation_report
    from neonet3d.report.case_pages import write_case_pages
    from neonet3d.report.checklists import write_checklists
    from neonet3d.report.html import write_report
    from neonet3d.report.viewer import write_viewer
    from neonet3d.study.augmentation_results import is_augmentation_study

    if is_augmentation_study(run):
        typer.echo(f"Report: {write_augmentation_report(run)}")
        return
    typer.echo(f"Report: {write_report(run)}")
    typer.echo(f"Volumes in 3D: {write_viewer(run)}")
    typer.echo(f"Model card and checklists: {', '.join(p.name for p in write_checklists(run))}")
    if cases:
        typer.echo(f"Held-out cases: {', '.join(page.name for page in write_case_pages(run))}")


def _executor(workers: int | None, scheduler: str | None) -> AbstractContextManager[Executor]:
    from neonet3d.engine.cluster import local_cluster, scheduler_at
    from neonet3d.engine.executor import run_here
    from neonet3d.errors import InputError

    if workers is not None and scheduler is not None:
        raise InputError("--workers starts workers, --scheduler uses others. Give one of them.")
    if workers is not None:
        return local_cluster(workers)
    return nullcontext(run_here) if scheduler is None else scheduler_at(scheduler)


def _run(
    out: Path,
    settings: Config,
    cohort: Callable[[], Cohort],
    title: str,
    *,
    as_json: bool,
    folds: Sequence[Fold] | None = None,
    execute: Executor | None = None,
) -> None:
    from neonet3d.engine.device import peak_memory_bytes
    from neonet3d.engine.executor import run_here
    from neonet3d.engine.run import RunFolder, command_line
    from neonet3d.report.checklists import write_checklists
    from neonet3d.report.html import write_report
    from neonet3d.report.viewer import write_viewer
    from neonet3d.study.pni import run_pni_study

    started = time.monotonic()
    with RunFolder.open(out, settings, study="pni", command=command_line()) as run:
        with run.timed("cohort"):
            patients = cohort()
        execute = execute or run_here
        results = run_pni_study(patients, run, title=title, folds=folds, execute=execute)
        run.update_manifest(wall_seconds=round(time.monotonic() - started, 1))
        if execute is run_here:  # of workers, this process does not know it
            run.update_manifest(peak_memory_gib=round(peak_memory_bytes() / 2**30, 2))
        page = write_report(out)
        write_viewer(out)
        write_checklists(out)
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
