"""Options that several commands share, and how results are printed.

Commands import what they need when they run: ``--help`` must not wait for torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.cohort.folds import Fold
    from neonet3d.config import Config
    from neonet3d.metrics.interval import Interval

CohortPath = Annotated[Path, typer.Argument(help="Cohort folder.", show_default=False)]
OutPath = Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)]
ModelPath = Annotated[Path, typer.Argument(help="Folder of the trained model.", show_default=False)]
Preset = Annotated[
    str,
    typer.Option(
        help="demo (minutes), cpu (a laptop), gpu, paper (96x96x48 patches), liver (whole livers)."
    ),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file over the preset.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one key, e.g. unet.loop.steps=500.",
        show_default=False,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed over the preset's.", show_default=False)]
DivisionSeed = Annotated[
    int, typer.Option("--seed", help="Of the folds, as in training, and of resampling.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
FoldChoice = Annotated[
    str | None,
    typer.Option(
        "--fold",
        metavar="K/N",
        help="Fold K of N, or K of --splits: training commands fit on its training patients, the "
        "others work on those it holds out. Default: the official split where the cohort has one, "
        "else everyone.",
        show_default=False,
    ),
]

SplitsFile = Annotated[
    Path | None,
    typer.Option(
        "--splits",
        metavar="FILE",
        help="Folds of your own in nnU-Net's form (splits.json of a run, splits_final.json).",
        show_default=False,
    ),
]


def resolve(
    preset: str, config: Path | None, overrides: list[str] | None, seed: int | None
) -> Config:
    """The configuration that a command's options ask for."""
    from neonet3d.config import load_config

    return load_config(preset, file=config, overrides=overrides or [], seed=seed)


def training_fold(cohort: Path, fold: str | None, seed: int, splits: Path | None = None) -> Fold:
    """The division a training command works on."""
    from neonet3d.cohort.cohort import Cohort

    return _choose(Cohort.open(cohort), fold, seed, splits)


def cases_to_apply(cohort: Path, fold: str | None, seed: int, splits: Path | None = None) -> Cohort:
    """The held-out cases of a fold or an official split, or every case where there is neither."""
    from neonet3d.cohort.cohort import Cohort

    everyone = Cohort.open(cohort)
    if fold is None and splits is None and all(case.split == "test" for case in everyone):
        return everyone  # no division to train on, and none is asked for
    chosen = _choose(everyone, fold, seed, splits)
    return chosen.held_out if len(chosen.held_out) else everyone


def _choose(cohort: Cohort, fold: str | None, seed: int, splits: Path | None) -> Fold:
    from neonet3d.cohort.folds import choose_fold
    from neonet3d.cohort.splits import pick_fold, read_splits

    if splits is not None:
        return pick_fold(read_splits(splits, cohort), fold)
    return choose_fold(cohort, fold, seed=seed)


def show(result: Mapping[str, object], *, as_json: bool, sentence: str) -> None:
    """Print a result for machines (one JSON object) or for people."""
    typer.echo(json.dumps(_finite(result), indent=2, allow_nan=False) if as_json else sentence)


def _finite(value: object) -> object:
    """JSON has no nan and no infinity (an interval that cannot be known): null stands for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def show_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table on stdout."""
    from rich.console import Console
    from rich.table import Column, Table

    # Folded, since a path that ends in an ellipsis is of no use.
    table = Table(*(Column(c, overflow="fold") for c in columns), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160  # a file or a pipe has no width to fit into
    console.print(table)


def interval_text(interval: Interval, digits: int = 3) -> str:
    """``.812 [.701, .889] n=60``."""
    value, low, high = (f"{x:.{digits}f}" for x in (interval.value, interval.low, interval.high))
    positives = "" if interval.n_positive is None else f" ({interval.n_positive} positive)"
    return f"{value} [{low}, {high}] n={interval.n}{positives}"


def interval_json(interval: Interval) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(interval)
