"""The table of labels that comes with a data set: CSV, TSV or XLSX as people and Excel write it."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pandas as pd

from neonet3d.cohort.importers.spreadsheet import read_sheet
from neonet3d.errors import InputError

MISSING = ("", "n/a", "N/A", "NA", "nan", "NaN")
NAMES = ("case", "participant_id", "PatientID")
OUTCOMES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


def read_table(path: Path, *, by_patient_id: bool = False) -> pd.DataFrame:
    """Read a table of cases as text; nothing becomes a number, so ``00123`` stays ``00123``.

    The separator is ``,``, ``;`` or tab, whichever the first line holds most of; a byte-order mark
    is skipped. A sheet of several is chosen by ``TABLE.xlsx#Sheet``.

    Args:
        by_patient_id: where there is a column ``PatientID``, it names the cases, whatever ``case``
            says.

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
    for number, line in enumerate(lines, start=1):
        if len(line) != len(header):
            raise InputError(
                f"{path}: row {number} has {len(line)} fields but the first row names "
                f"{len(header)} columns{separated}. Mend the row."
            )
    if len(set(header)) < len(header):
        raise InputError(f"{path} names a column twice: {header}. Rename one.")
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
                f"{header}. Name the column that holds the scans' names 'case'."
            )
        table.insert(0, "case", table[named[0]])
    table = table.drop(columns="PatientID", errors="ignore")
    if table["case"].isna().any():
        raise InputError(f"{path}: {int(table['case'].isna().sum())} rows name no case. Fill them.")
    repeated = table["case"][table["case"].duplicated()]
    if len(repeated):
        raise InputError(f"{path} lists the case {repeated.iloc[0]!r} twice. Keep one row.")
    return table


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
    these are PatientIDs.

    Raises:
        InputError: the outcome has no column or is not 0/1, no row names a scan, or ids that lost
            their leading zeros.
    """
    if outcome_name is not None and outcome_name not in table:
        raise InputError(
            f"The table has no column {outcome_name!r}; it has {list(table.columns)}. "
            "Choose the outcome among these."
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
    kept = ("case", "participant_id", outcome_name)
    return {
        name: CaseLabels(
            outcome=_outcome(row[outcome_name], shown(name).strip("'"), outcome_name)
            if outcome_name
            else None,
            participant=row.get("participant_id"),
            extra={
                str(column): str(value)
                for column, value in row.items()
                if column not in kept and value is not None
            },
        )
        for name, row in rows.items()
        if name in names
    }


def _outcome(value: str | None, name: str, column: str) -> int | None:
    if value is not None and value not in OUTCOMES:
        raise InputError(f"{name}: {column} is {value!r} in the table, not 0 or 1. Recode it.")
    return None if value is None else OUTCOMES[value]
