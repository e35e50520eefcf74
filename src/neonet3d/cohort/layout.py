"""The two text files of a cohort folder, read and verified: dataset.json and participants.tsv."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from neonet3d.errors import InputError

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OUTCOMES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}  # as tables write them; all else is none


@dataclass(frozen=True)
class Fault:
    """Why a row cannot be used.

    Attributes:
        case: as the table writes it, escaped where it is no safe id; None where it names none.
        sentence: what, where and what to do.
    """

    case: str | None
    sentence: str


def read_description(root: Path) -> dict[str, Any]:
    """dataset.json of a cohort, known to name the classes.

    Raises:
        InputError: no JSON, or no ``labels``.
    """
    path = root / "dataset.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        return description | {"labels": dict(description["labels"])}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not nnU-Net's description of a data set ({error!r}). "
            'It needs "labels": {"background": 0, "liver": 1, ...}.'
        ) from error


def read_participants(root: Path, outcome_name: str | None) -> pd.DataFrame:
    """participants.tsv as text, one row per case; empty fields and ``n/a`` are missing.

    Raises:
        InputError: not a table, a column missing, ids that are missing, unsafe or repeated.
    """
    table, faults = survey_participants(root, outcome_name)
    if faults:
        raise InputError(faults[0].sentence)
    return table


def survey_participants(
    root: Path, outcome_name: str | None
) -> tuple[pd.DataFrame, tuple[Fault, ...]]:
    """The rows of participants.tsv that can be used, and what is wrong with the others.

    Raises:
        InputError: not a table, or a column missing, so that no row can be read.
    """
    path = root / "participants.tsv"
    _require_even_rows(path)
    try:  # an id may be NA or None: only n/a and nothing at all are missing
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=str,
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values=["", "n/a"],
            index_col=False,
        )
    except ValueError as error:
        raise InputError(
            f"{path} is not a tab-separated table ({error}). Save it again from its source."
        ) from error
    needed = ["participant_id", "case"] + ([outcome_name] if outcome_name else [])
    absent = [column for column in needed if column not in table]
    other = [mark for mark in ";," if len(table.columns) == 1 and mark in table.columns[0]]
    if absent and other:
        raise InputError(
            f"{path} is separated by {other[0]!r} and not by tabs. "
            "Save it as tab-separated text (TSV)."
        )
    if absent:
        raise InputError(
            f"{path} has no column {absent[0]!r}; it has {list(table.columns)}. "
            "Name the columns participant_id, case and the outcome, separated by tabs."
        )
    faults: list[Fault | None] = list(_row_faults(path, table))
    return table[[fault is None for fault in faults]], tuple(f for f in faults if f is not None)


def _require_even_rows(path: Path) -> None:
    """A stray quotation mark joins rows, and a stray tab shifts columns: patients would vanish.

    Raises:
        InputError: a row with fewer or more fields than there are columns, or a line break in one.
    """
    header: list[str] = []
    try:
        rows = participants_as_written(path.parent)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} is not a tab-separated table ({error}). Save it again from its source."
        ) from error
    for number, row in enumerate(rows, start=1):
        header = header or row
        broken = any("\n" in field or "\r" in field for field in row)
        if broken or len(row) != len(header):
            what = "a line break inside a field" if broken else f"{len(row)} fields"
            raise InputError(
                f"{path}: row {number} has {what}, and there are {len(header)} columns. Look for "
                "stray quotation marks and tabs."
            )


def participants_as_written(root: Path) -> list[list[str]]:
    """Every field of participants.tsv, the line of column names first; nothing is judged.

    Empty lines are left out, as whoever reads the table does.
    """
    text = (root / "participants.tsv").read_text(encoding="utf-8-sig")
    return [row for row in csv.reader(StringIO(text), delimiter="\t") if row]


def _row_faults(path: Path, table: pd.DataFrame) -> Iterator[Fault | None]:
    """For each row what is wrong with it, or None."""
    seen: Counter[str] = Counter()
    rows = zip(table["case"], table["participant_id"], strict=True)
    for number, (case, participant) in enumerate(rows, start=2):
        if not isinstance(case, str) or not isinstance(participant, str):
            named = case if isinstance(case, str) else None
            yield Fault(
                named and escaped(named),
                f"{path}: the row of case {escaped(case) if named else f'(line {number})'} lacks "
                "an id. Fill participant_id and case in every row.",
            )
            continue
        unsafe = [text for text in (case, participant) if not SAFE_ID.fullmatch(text)]
        seen[case] += 1
        if unsafe:
            yield Fault(
                escaped(case),
                f"{path}: the id {unsafe[0]!r} may hold only letters, digits, '.', '_' and '-'. "
                "Rename it.",
            )
        elif seen[case] > 1:
            yield Fault(case, f"{path} lists the case {case!r} twice. Keep one row.")
        else:
            yield None


def escaped(identifier: str) -> str:
    """An id that is safe to print: quoted, with what a terminal would act on written out."""
    return identifier if SAFE_ID.fullmatch(identifier) else repr(identifier)


def require_inside(root: Path, path: Path, *, name: str) -> None:
    """A file of a cohort lies in its folder; a link to elsewhere could show any file there is.

    Raises:
        InputError: the file is, or lies behind, a link that leads out of ``root``.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"{name}: {path} is a link that leads out of the cohort. "
            "Put the file itself into the folder."
        )


def without_leading_zeros(root: Path, name: str) -> str | None:
    """The scan that Excel's ``123`` was, such as ``00123``; None unless there is just one."""
    found = [
        path.name.removesuffix("_0000.nii.gz")
        for path in (root / "imagesTr").glob(f"0*{name}_0000.nii.gz")
    ]
    matching = [original for original in found if original.lstrip("0") == name]
    return matching[0] if len(matching) == 1 else None
