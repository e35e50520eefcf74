"""splits.json: folds in a file, in nnU-Net's form, to be read, compared and replaced.

::

    [{"train": ["case_000", ...], "val": ["case_004", ...]}, ...]      one entry per fold

It is what nnU-Net calls ``splits_final.json``, so one division serves both programs.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold, listed, refuse_synthetic, require_apart
from neonet3d.cohort.volume import write_atomically
from neonet3d.errors import InputError

SIDES = ("train", "val")


def write_splits(path: Path, folds: Sequence[Fold]) -> None:
    """Write the folds' case names; ``read_splits`` gives the same folds back."""
    entries = [
        {
            "train": [case.name for case in fold.training],
            "val": [case.name for case in fold.held_out],
        }
        for fold in folds
    ]
    write_atomically(path, (json.dumps(entries, indent=1) + "\n").encode())


def read_splits(path: Path, cohort: Cohort) -> list[Fold]:
    """Folds of the user's own; a case may stand in neither list of a fold.

    Raises:
        InputError: not nnU-Net's form, unknown names, a case or a patient on both sides, an empty
            side, a class without a training case, synthetic cases in the cohort.
    """
    refuse_synthetic(cohort)
    folds = []
    for index, entry in enumerate(_entries(path)):
        where = f"{path}, fold {index}"
        _require_known(entry, cohort, where)
        training, held_out = (
            cohort.subset(case for case in cohort if case.name in set(entry[side]))
            for side in SIDES
        )
        require_apart(training, held_out, where, ("train", "val"))
        _require_classes(cohort, training, where)
        folds.append(Fold(f"fold-{index}", training, held_out))
    return folds


def pick_fold(folds: Sequence[Fold], choice: str | None) -> Fold:
    """One fold of a file of splits.

    Args:
        choice: ``"K"``, or ``"K/N"`` where the file has N folds.

    Raises:
        InputError: no choice, a malformed one, or one that the file does not have.
    """
    match = re.fullmatch(r"(\d+)(?:/(\d+))?", choice or "")
    if not match:
        raise InputError(
            f"--splits needs the fold to work on, --fold K with K from 0 to {len(folds) - 1}, "
            f"and --fold is {choice!r}. Choose one."
        )
    if int(match[1]) >= len(folds) or int(match[2] or len(folds)) != len(folds):
        raise InputError(
            f"--fold {choice} is not in the file of --splits, which has {len(folds)} folds. "
            f"Choose --fold K with K from 0 to {len(folds) - 1}."
        )
    return folds[int(match[1])]


def _entries(path: Path) -> list[dict[str, list[str]]]:
    if not path.is_file():
        raise InputError(f"There is no file {path}. Check the path.")
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). Save it again from its source.") from error
    if not isinstance(entries, list) or not entries or not all(map(_is_entry, entries)):
        raise InputError(
            f"{path} is not a list of folds in nnU-Net's form. "
            'Write [{"train": ["case_000", ...], "val": ["case_004", ...]}, ...].'
        )
    return entries


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(entry.get(side), list) and all(isinstance(name, str) for name in entry[side])
        for side in SIDES
    )


def _require_known(entry: dict[str, list[str]], cohort: Cohort, where: str) -> None:
    known = {case.name for case in cohort}
    for side in SIDES:
        names = entry[side]
        if not names:
            raise InputError(f"{where}: {side!r} is empty. Name the cases of that side.")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise InputError(
                f"{where}: {side!r} names {len(unknown)} cases that {cohort.root} does not have "
                f"({listed(unknown)}). Correct the names or choose the cohort they are of."
            )
        repeated = [name for name, n in Counter(names).items() if n > 1]
        if repeated:
            raise InputError(f"{where}: {side!r} names {listed(repeated)} twice. Keep one.")


def _require_classes(cohort: Cohort, training: Cohort, where: str) -> None:
    if cohort.outcome_name is None:
        return
    for value in sorted({case.outcome for case in cohort if case.outcome is not None}):
        if not any(case.outcome == value for case in training):
            raise InputError(
                f"{where}: no case of 'train' has {cohort.outcome_name} = {value}, so a classifier "
                "cannot learn it. Move some there."
            )
