"""The table of labels that comes with a data set: CSV, TSV or XLSX as people and Excel write it."""

from __future__ import annotations

import csv
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from neonet3d.cohort.importers.spreadsheet import read_sheet
from neonet3d.cohort.layout import OUTCOMES, SAFE_ID
from neonet3d.errors import InputError

MISSING = ("", "n/a", "N/A", "NA", "nan", "NaN")
NAMES = ("case", "participant_id", "PatientID")
BREAKS = re.compile(r"[\t\r\n]")  # what participants.tsv cannot hold


def read_table(
    path: Path, *, by_patient_id: bool = False, hide_names: bool = False
) -> pd.DataFrame:
    """Read a table of cases as text; nothing becomes a number, so ``00123`` stays ``00123``.

    The separator is ``,``, ``;`` or tab, whichever the first line holds most of; a byte-order mark
    is skipped. A sheet of several is chosen by ``TABLE.xlsx#Sheet``.

    Args:
        by_patient_id: where there is a column ``PatientID``, it names the cases, whatever ``case``
            says.
        hide_names: no error message repeats a name; these are PatientIDs.

    Returns:
        One row per case with a column ``case`` (copied from ``participant_id`` or ``PatientID``
        where there is none); missing values are None. ``PatientID`` does not stay a column.

    Raises:
        InputError: what ``read_sheet`` refuses, another kind of file, no UTF-8, lines of different
            lengths, no or repeated cases.
    """
    chosen = re.fullmatch(r"(.+\.xlsx)#(.+)", str(path), re.IGNORECASE)
    if chosen:
        lines, separated = read_sheet(Path(chosen[1]), chosen[2], text_columns=NAMES), ""
    elif path.suffix.lower() == ".xlsx":
        lines, separated = read_sheet(path, None, text_columns=NAMES), ""
    else:
        lines, separator = _read_lines(path)
        separated = f" (separator {separator!r})"
    if len(lines) < 2:
        raise InputError(f"{path} holds no rows. It needs a line of column names and one per case.")
    header = [name.strip() for name in lines[0]]
    # A table without names of columns begins with a patient.
    listed = "(hidden; --keep-ids shows them)" if hide_names else str(header)
    for number, line in enumerate(lines, start=1):
        if len(line) != len(header):
            raise InputError(
                f"{path}: row {number} has {len(line)} fields but the first row names "
                f"{len(header)} columns{separated}. Mend the row."
            )
    if len(set(header)) < len(header):
        raise InputError(f"{path} names a column twice: {listed}. Rename one.")
    table = pd.DataFrame(
        [[None if (value := v.strip()) in MISSING else value for v in line] for line in lines[1:]],
        columns=header,
        dtype=object,
    )
    if by_patient_id and "PatientID" in table:
        table["case"] = table["PatientID"]
    if "case" not in table:
        named = [name for name in NAMES if name in table]
        if not named:
            raise InputError(
                f"{path} has no column 'case' or 'participant_id' (for DICOM: 'PatientID'); it has "
                f"{listed}. Name the column that holds the scans' names 'case'."
            )
        table.insert(0, "case", table[named[0]])
    table = table.drop(columns="PatientID", errors="ignore")
    if table["case"].isna().any():
        raise InputError(f"{path}: {int(table['case'].isna().sum())} rows name no case. Fill them.")
    _require_once(path, table["case"].tolist(), hide_names=hide_names)
    return table


def _require_once(path: Path, names: list[str], *, hide_names: bool) -> None:
    seen: dict[str, int] = {}
    for number, name in enumerate(names, start=2):  # the first row names the columns
        if name in seen:
            which = "a case" if hide_names else f"the case {name!r}"
            raise InputError(
                f"{path} lists {which} twice, in rows {seen[name]} and {number}. Keep one row."
            )
        seen[name] = number


def _read_lines(path: Path) -> tuple[list[list[str]], str]:
    """Lines of a CSV or TSV file that are not empty, and what separates their fields."""
    if not path.is_file():
        raise InputError(f"There is no table {path}. Check the path.")
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise InputError(
            f"{path} is not a CSV, TSV or XLSX file. Save the table as CSV (UTF-8) first."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}). Save it as CSV (UTF-8).") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        lines = [line for line in csv.reader(StringIO(text), delimiter=separator) if any(line)]
    except csv.Error as error:
        raise InputError(
            f"{path} is not a table ({error}). Look for a quotation mark that is not closed."
        ) from error
    return lines, separator


@dataclass(frozen=True)
class CaseLabels:
    """What the table says of one case."""

    outcome: int | None = None
    participant: str | None = None
    extra: dict[str, str] = field(default_factory=dict)


def labels_by_case(
    table: pd.DataFrame,
    names: Iterable[str],
    *,
    outcome_name: str | None,
    hide_names: bool = False,
) -> dict[str, CaseLabels]:
    """Join a table to the scans of a data set.

    A scan without a row has no outcome; a row without a scan is left out, for tables often list
    patients whose scans were excluded. With ``hide_names`` no error message repeats a name, for
    these are PatientIDs, and participants are not looked at, for they are not written.

    Raises:
        InputError: the outcome has no column or is not 0/1, no row names a scan, ids that lost
            their leading zeros, or what participants.tsv cannot hold.
    """
    if outcome_name is not None and outcome_name not in table:
        raise InputError(
            f"The table has no column {outcome_name!r}; it has {list(table.columns)}. "
            "Choose the outcome among these."
        )
    for column in table.columns:
        if BREAKS.search(str(column)):
            raise InputError(
                f"The table of labels has a column {str(column)!r}, with a tab or a line break in "
                "its name. Rename it."
            )

    def shown(name: str) -> str:
        return "(hidden; --keep-ids shows it)" if hide_names else repr(name)

    names, rows = list(names), {str(row["case"]): row for row in table.to_dict("records")}
    shortened = {name.lstrip("0"): name for name in names if name not in rows}
    for row in rows:
        if row not in names and row in shortened:
            raise InputError(
                f"The table names a case {shown(row)} where there is a scan "
                f"{shown(shortened[row])}. Excel dropped the leading zeros; format the column as "
                "text and export it again."
            )
    if not rows.keys() & set(names):
        raise InputError(
            f"No row of the table names a scan: the table has {shown(next(iter(rows)))}, the data "
            f"set {shown(names[0])}. The column 'case' must hold the scans' names (for DICOM, the "
            "PatientIDs)."
        )
    found: dict[str, CaseLabels] = {}
    for name, said in rows.items():
        if name in names:
            where = shown(name).strip("'")
            participant = said.get("participant_id")
            if participant is not None and not hide_names:
                _require_safe(participant, where)
            outcome = said[outcome_name] if outcome_name else None
            hidden = hide_names and outcome in rows
            found[name] = CaseLabels(
                _outcome(outcome, where, outcome_name, shown=not hidden) if outcome_name else None,
                participant,
                _extra(said, where, outcome_name),
            )
    return found


def _outcome(value: str | None, where: str, column: str, *, shown: bool) -> int | None:
    if value is not None and value not in OUTCOMES:
        what = repr(value) if shown else "a PatientID"
        raise InputError(f"{where}: {column} is {what} in the table, not 0 or 1. Recode it.")
    return None if value is None else OUTCOMES[value]


def _require_safe(participant: str, where: str) -> None:
    if not SAFE_ID.fullmatch(participant):
        raise InputError(
            f"{where}: participant_id is {participant!r} in the table of labels; it may hold only "
            "letters, digits, '.', '_' and '-'. Rename it."
        )


def _extra(row: Mapping[Hashable, Any], where: str, outcome_name: str | None) -> dict[str, str]:
    """What further columns say of a case; free text is not repeated in an error message."""
    kept = ("case", "participant_id", outcome_name)
    extra = {str(c): str(value) for c, value in row.items() if c not in kept and value is not None}
    for column, value in extra.items():
        if BREAKS.search(value):
            raise InputError(
                f"{where}: {column} holds a tab or a line break in the table of labels. Write it "
                "on one line."
            )
    return extra
