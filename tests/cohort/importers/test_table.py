from __future__ import annotations

from pathlib import Path

import pytest

from neonet3d.cohort.importers.table import labels_by_case, read_table
from neonet3d.errors import InputError


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_excel_writes_is_read(tmp_path: Path, separator: str, start: str, end: str) -> None:
    rows = [["case", "participant_id", "pni", "note"], ["00123", "p1", "1", '"a, b; c"'], ["x"] * 4]
    text = start + end.join(separator.join(row) for row in rows) + end + end
    table = read_table(written(tmp_path, text))
    assert list(table.columns) == rows[0]
    assert table.loc[0].tolist() == ["00123", "p1", "1", "a, b; c"]


def test_participants_name_the_cases_where_nothing_else_does(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "participant_id\tpni\nsub-1\tn/a\n", "t.tsv"))
    assert table["case"].tolist() == ["sub-1"]
    assert table["pni"].tolist() == [None]


@pytest.mark.parametrize(
    ("text", "name", "sentence"),
    [
        ("", "t.csv", "holds no rows"),
        ("case,pni\n", "t.csv", "holds no rows"),
        ("case,pni\na,1\n", "t.xlsx", "not a whole XLSX"),
        ("case,pni\na,1,2\n", "t.csv", "row 2 has 3 fields"),
        ("case,pni,pni\na,1,0\n", "t.csv", "names a column twice"),
        ("name,pni\na,1\n", "t.csv", "no column 'case' or 'participant_id'"),
        ("case,pni\n,1\n", "t.csv", "1 rows name no case"),
        ("case,pni\na,1\nb,1\na,0\n", "t.csv", "lists the case 'a' twice, in rows 2 and 4"),
    ],
)
def test_a_bad_table_is_an_input_error(tmp_path: Path, text: str, name: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_table(written(tmp_path, text, name))


def test_a_table_in_another_encoding_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("case,note\na,Größe\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(InputError, match="There is no table"):
        read_table(tmp_path / "absent.csv")


def test_labels_are_joined_by_name(tmp_path: Path) -> None:
    text = "case,participant_id,pni,age\na,p1,1.0,61\nb,p2,,\nexcluded,p3,1,50\n"
    labels = labels_by_case(
        read_table(written(tmp_path, text)), ["a", "b", "c"], outcome_name="pni"
    )
    assert sorted(labels) == ["a", "b"]
    assert (labels["a"].outcome, labels["a"].participant, labels["a"].extra) == (
        1,
        "p1",
        {"age": "61"},
    )
    assert (labels["b"].outcome, labels["b"].extra) == (None, {})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("case,pni\n123,1\n", r"'123' where there is a scan '00123'.*leading zeros"),
        ("case,pni\nother,1\n", "No row of the table names a scan: the table has 'other'"),
        ("case,pni\n00123,2\n", "00123: pni is '2' in the table, not 0 or 1"),
        ("case,age\n00123,2\n", r"no column 'pni'; it has \['case', 'age'\]"),
        ("case,pni,participant_id\n00123,1,p 1\n", "00123: participant_id is 'p 1' .* Rename it"),
        ('case,pni,note\n00123,1,"a\tb"\n', "00123: note holds a tab or a line break"),
        ('case,pni,note\n00123,1,"a\nb"\n', "00123: note holds a tab or a line break"),
        ('case,pni,"no\nte"\n00123,1,a\n', r"a column 'no\\nte', with a tab or a line break"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        labels_by_case(read_table(written(tmp_path, text)), ["00123"], outcome_name="pni")


def test_patient_ids_name_the_cases_and_are_not_kept_as_a_column(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "PatientID,pni\nP-7,1\n"))
    assert table.to_dict("records") == [{"case": "P-7", "pni": "1"}]
    both = written(tmp_path, "case,PatientID,pni\nc1,P-7,1\n")
    assert read_table(both)["case"].tolist() == ["c1"]
    assert read_table(both, by_patient_id=True)["case"].tolist() == ["P-7"]


@pytest.mark.parametrize(
    "text",
    [
        "case,pni\n123,1\n",
        "case,pni\nx,1\n",
        "case,pni\n00123,7\n",
        "case,pni\n00123,00123\n",
        'case,pni,note\n00123,1,"00123\nb"\n',
    ],
)
def test_hidden_names_are_in_no_message(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="hidden; --keep-ids shows it") as refused:
        labels_by_case(
            read_table(written(tmp_path, text)), ["00123"], outcome_name="pni", hide_names=True
        )
    assert "123" not in str(refused.value)


def test_a_row_without_a_scan_may_say_what_it_likes(tmp_path: Path) -> None:
    text = 'case,participant_id,note\na,p1,x\nexcluded,p 2,"a\nb"\n'
    table = read_table(written(tmp_path, text))
    assert list(labels_by_case(table, ["a"], outcome_name=None)) == ["a"]


def test_participants_that_are_not_written_are_not_looked_at(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "case,participant_id\nP-7,Doe Jane\n"))
    assert list(labels_by_case(table, ["P-7"], outcome_name=None, hide_names=True)) == ["P-7"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("PatientID,pni\nP-7,1\nP-8,0\nP-7,0\n", "lists a case twice, in rows 2 and 4"),
        ("P-7,1\nP-8,0\n", "no column 'case' .*hidden; --keep-ids shows them"),
        ("P-7,P-7\nP-8,0\n", "names a column twice: .hidden; --keep-ids shows them"),
    ],
)
def test_hidden_names_are_in_no_message_about_the_table(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        read_table(written(tmp_path, text), by_patient_id=True, hide_names=True)
    assert "P-7" not in str(refused.value)
