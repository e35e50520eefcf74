from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from openpyxl import Workbook

from neonet3d.cohort.importers.spreadsheet import read_sheet
from neonet3d.cohort.importers.table import read_table
from neonet3d.errors import InputError


def saved(folder: Path, rows: list[list[object]], formats: dict[str, str] | None = None) -> Path:
    book = Workbook()
    sheet = book.worksheets[0]
    for row in rows:
        sheet.append(row)
    for place, number_format in (formats or {}).items():
        sheet[place].number_format = number_format
    book.create_sheet("Sheet2")  # Excel leaves empty ones
    book.save(folder / "t.xlsx")
    return folder / "t.xlsx"


def test_names_stay_what_excel_shows(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["case", "pni", "age", "when"],
        [123, 1, 61.5, date(2020, 1, 2)],
        ["00124", 0.0, None, None],
        [],
        [125.0, True, "n/a", None],
    ]
    table = read_table(saved(tmp_path, rows, {"A2": "00000"}))
    assert table["case"].tolist() == ["00123", "00124", "125"]
    assert table["pni"].tolist() == ["1", "0", "1"]
    assert table["age"].tolist() == ["61.5", None, None]
    assert table["when"].tolist() == ["2020-01-02", None, None]


@pytest.mark.parametrize(
    ("rows", "formats", "sentence"),
    [
        ([["case"], [123]], {"A2": '"P"000'}, r"cell A2: .* a number in the format '\"P\"000'"),
        ([["PatientID"], [12.5]], {}, r"cell A2: .* a number in the format 'General'"),
        ([["case"], [date(2020, 1, 2)]], {}, r"cell A2: .* is a date"),
        ([["case", "pni"], ["a", "=1+1"]], {}, r"cell B2: the formula '=1\+1' has no result"),
        ([["case"], ['="P-7"']], {}, "cell A2: the formula of a name has no result"),
        ([["case", "pni"], ["a", "#N/A"]], {}, "cell B2: the cell shows the error #N/A"),
        ([], {}, "holds no rows"),
        ([["case", "pni"]], {}, "holds no rows"),
    ],
)
def test_a_doubtful_cell_is_refused(
    tmp_path: Path, rows: list[list[object]], formats: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        read_table(saved(tmp_path, rows, formats))
    shown = str(refused.value).removeprefix(str(tmp_path))
    assert not any(name in shown for name in ("123", "12.5", "2020", "P-7"))  # may be PatientIDs


def test_one_of_several_sheets_is_chosen(tmp_path: Path) -> None:
    book = Workbook()
    first, second = book.worksheets[0], book.create_sheet("follow up")
    for sheet, value in ((first, "1"), (second, "0")):
        sheet.append(["case", "pni"])
        sheet.append(["a", value])
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(InputError, match=r"sheets; .*\['Sheet', 'follow up'\].*t.xlsx#Sheet"):
        read_table(tmp_path / "t.xlsx")
    assert read_table(Path(f"{tmp_path}/t.xlsx#follow up"))["pni"].tolist() == ["0"]
    upper = (tmp_path / "t.xlsx").rename(tmp_path / "T.XLSX")
    assert read_table(Path(f"{upper}#Sheet"))["pni"].tolist() == ["1"]
    upper.rename(tmp_path / "t.xlsx")
    with pytest.raises(InputError, match="no filled sheet 'x'"):
        read_table(Path(f"{tmp_path}/t.xlsx#x"))


def test_what_is_no_workbook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no table"):
        read_sheet(tmp_path / "t.xlsx", None, text_columns=())
    whole = saved(tmp_path, [["case"], ["a"]]).read_bytes()
    for damaged in (b"case,pni\na,1\n", b"", whole[: len(whole) // 2]):
        (tmp_path / "t.xlsx").write_bytes(damaged)
        with pytest.raises(InputError, match="not a whole XLSX"):
            read_sheet(tmp_path / "t.xlsx", None, text_columns=())
