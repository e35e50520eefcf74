"""neonet3d study augmentation: rivals, fidelity, and what synthetic cases add to segmenters."""

from __future__ import annotations

import time
from typing import Annotated

import typer

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
    training_fold,
)
from neonet3d.cli.study import RunPath


def augmentation(
    cohort: CohortPath,
    out: RunPath,
    fold: Annotated[
        str | None,
        typer.Option(
            "--fold",
            metavar="K/N",
            help="Fold K of N, or K of --splits: its training patients are the pool, its held-out "
            "ones are segmented. Default: the official split where the cohort has one, else 0/5.",
            show_default=False,
        ),
    ] = None,
    splits: SplitsFile = None,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """The two tables of 3D-LLDM: generators beside rivals, five segmenters with synthetic cases.

    On a cohort of patches with masks; crop whole scans first. An interrupted run goes on.
    """
    from neonet3d.engine.run import RunFolder, command_line
    from neonet3d.report.augmentation import write_augmentation_report
    from neonet3d.study.augmentation import run_augmentation_study

    settings = resolve(preset, config, overrides, seed)
    division = training_fold(cohort, fold, settings.seed, splits)
    if fold is None and len(division.held_out) == 0:
        division = training_fold(cohort, "0/5", settings.seed)
    started = time.monotonic()
    with RunFolder.open(out, settings, study="augmentation", command=command_line()) as run:
        results = run_augmentation_study(division, run, title=division.training.root.name)
        run.update_manifest(wall_seconds=round(time.monotonic() - started, 1))
        page = write_augmentation_report(out)
    if not as_json:
        show_table(
            ("generator", "KID", "FID", "two-sample AUC"),
            [
                (row.key, f"{row.kid:.3f}", f"{row.fid:.1f}", interval_text(row.two_sample))
                for row in results.generators
            ],
        )
        show_table(
            ("training set", "real cases", "Dice", "of real cases alone", "worth in real cases"),
            [
                (
                    results.arms[worth.arm],
                    str(worth.real_cases),
                    f"{worth.dice:.3f}",
                    f"{worth.real_dice:.3f}",
                    "off the curve" if worth.equal_to is None else f"{worth.equal_to:.0f}",
                )
                for worth in results.worth
            ],
        )
    show(
        {
            "report": str(page),
            "results": str(out / "results.json"),
            "kid": {row.key: row.kid for row in results.generators},
            "fid": {row.key: row.fid for row in results.generators},
            "worth": [worth.model_dump() for worth in results.worth],
        },
        as_json=as_json,
        sentence=f"Report: {page}",
    )
