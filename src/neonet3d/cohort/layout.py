"""The two text files of a cohort folder, read and verified: dataset.json and participants.tsv."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from neonet3d.errors import InputError

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
    path = root / "participants.tsv"
    try:  # an id may be NA or None: only n/a and nothing at all are missing
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=str,
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values=["", "n/a"],
        )
    except ValueError as error:
        raise InputError(
            f"{path} is not a tab-separated table ({error}). Save it again from its source."
        ) from error
    needed = ["participant_id", "case"] + ([outcome_name] if outcome_name else [])
    absent = [column for column in needed if column not in table]
    if absent:
        raise InputError(
            f"{path} has no column {absent[0]!r}; it has {list(table.columns)}. "
            "Name the columns participant_id, case and the outcome, separated by tabs."
        )
    nameless = table["case"][table["participant_id"].isna() | table["case"].isna()]
    if len(nameless):
        raise InputError(
            f"{path}: the row of case {nameless.iloc[0]} lacks an id. "
            "Fill participant_id and case in every row."
        )
    for identifier in pd.concat([table["case"], table["participant_id"]]):
        if not SAFE_ID.fullmatch(identifier):
            raise InputError(
                f"{path}: the id {identifier!r} may hold only letters, digits, '.', '_' and '-'. "
                "Rename it."
            )
    repeated = table["case"][table["case"].duplicated()]
    if len(repeated):
        raise InputError(f"{path} lists the case {repeated.iloc[0]!r} twice. Keep one row.")
    return table
