"""A sheet of an XLSX file as text, as Excel shows it where that matters: in the names of cases."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from neonet3d.errors import InputError

PLAIN_FORMATS = ("General", "0", "@")
UNREADABLE = (
    zipfile.BadZipFile,
    InvalidFileException,
    ParseError,
    KeyError,
    TypeError,  # of openpyxl, on styles that it does not know
    ValueError,
    OSError,
)


def read_sheet(path: Path, sheet: str | None, *, text_columns: Sequence[str]) -> list[list[str]]:
    """Rows of one sheet that are not empty, each as long as the longest.

    Excel keeps ``00123`` as the number 123 with the format ``00000``; such a cell becomes
    ``00123``. A whole number is written without a point.

    Args:
        path: the ``.xlsx``.
        sheet: its name; None where one sheet alone holds anything.
        text_columns: headers of columns that hold names; a number there whose format shows
            something else than the number is an error.

    Raises:
        InputError: no XLSX file, no such sheet, several sheets, a cell with an error or with a
            formula that was never calculated, a name in an unclear format.
    """
    if not path.is_file():
        raise InputError(f"There is no table {path}. Check the path.")
    try:
        values = load_workbook(path, data_only=True)
        formulas = load_workbook(path)
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a whole XLSX file ({error}). Save the table again, or as CSV (UTF-8)."
        ) from error
    title = _choose(path, sheet, [s.title for s in values.worksheets if _is_filled(s)])
    shown, written = values[title].iter_rows(), formulas[title].iter_rows()
    where = f"{path}#{title}"
    header: list[str] = []
    rows: list[list[str]] = []
    for row, sources in zip(shown, written, strict=True):
        if all(source.value is None for source in sources):
            continue
        is_name = [
            column < len(header) and header[column] in text_columns for column in range(len(row))
        ]
        line = [
            _text(cell, source.value, where, is_name=named)
            for cell, source, named in zip(row, sources, is_name, strict=True)
        ]
        header = header or [name.strip() for name in line]
        rows.append(line)
    used = max((i + 1 for line in rows for i, text in enumerate(line) if text), default=0)
    return [line[:used] for line in rows]


def _is_filled(sheet: Any) -> bool:
    return any(cell.value is not None for row in sheet.iter_rows() for cell in row)


def _choose(path: Path, sheet: str | None, filled: list[str]) -> str:
    if sheet is None and len(filled) == 1:
        return filled[0]
    if sheet in filled:
        return str(sheet)
    if not filled:
        raise InputError(f"{path} holds no rows. It needs a line of column names and one per case.")
    found = "several sheets" if sheet is None else f"no filled sheet {sheet!r}"
    raise InputError(
        f"{path} has {found}; filled are {filled}. Choose one: '{path.name}#{filled[0]}'."
    )


def _text(cell: Any, source: object, where: str, *, is_name: bool) -> str:
    """What a cell says. No error repeats a name, which may be a PatientID; the place suffices."""
    value, place = cell.value, f"{where}, cell {cell.coordinate}"
    if value is None:
        if source is not None:
            what = "formula of a name" if is_name else f"formula {source!r}"
            raise InputError(
                f"{place}: the {what} has no result. Open the table in Excel or "
                "LibreOffice, save it, or save it as CSV."
            )
        return ""
    if cell.data_type == "e":
        raise InputError(f"{place}: the cell shows the error {value}. Mend or empty it.")
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, datetime | date | time):
        if is_name:
            raise InputError(
                f"{place}: the name of a case is a date; Excel made it one. "
                "Format the column as text and type it again."
            )
        if isinstance(value, datetime) and value.time() == time():
            return str(value.date())
        return str(value)
    if not isinstance(value, int | float):
        return str(value)
    number = str(int(value)) if float(value).is_integer() else repr(value)
    if re.fullmatch("0+", cell.number_format) and "." not in number:
        return number.zfill(len(cell.number_format))
    if is_name and (cell.number_format not in PLAIN_FORMATS or not number.isdecimal()):
        raise InputError(
            f"{place}: the name of a case is a number in the format "
            f"{cell.number_format!r}. Format the column as text and type the name as it is."
        )
    return number
