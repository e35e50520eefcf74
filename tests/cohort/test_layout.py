from __future__ import annotations

from pathlib import Path

import pytest

from neonet3d.cohort.layout import read_description, read_participants
from neonet3d.errors import InputError


def participants(folder: Path, text: str) -> Path:
    (folder / "participants.tsv").write_bytes(text.encode())
    return folder


def test_ids_stay_text(tmp_path: Path) -> None:
    """Excel's 00123, and a patient whose id reads like a missing value."""
    text = "\ufeffparticipant_id\tcase\tpni\n00123\tNA\t1\nNone\t1e5\tn/a\n"
    table = read_participants(participants(tmp_path, text), "pni")
    assert table["participant_id"].tolist() == ["00123", "None"]
    assert table["case"].tolist() == ["NA", "1e5"]
    assert table["pni"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not a tab-separated table"),
        ("participant_id,case\na,b\n", "separated by ','"),
        ("participant_id\tcase\na\tb\n", "no column 'pni'"),
        ("participant_id\tcase\tpni\n\tb\t1\n", "the row of case b lacks an id"),
        ("participant_id\tcase\tpni\na\tb\t1\nc\tb\t0\n", "lists the case 'b' twice"),
        ("participant_id\tcase\tpni\na\t../b\t1\n", "the id '../b' may hold only"),
        ("participant_id\tcase\tpni\n=cmd\tb\t1\n", "the id '=cmd' may hold only"),
        ("participant_id\tcase\tpni\n<script>\tb\t1\n", "the id '<script>' may hold only"),
        (
            'participant_id\tcase\tpni\tnote\na\tb\t1\t"large\nc\td\t0\t\ne\tf\t1\tx"\n',
            "row 2 has a line break inside a field",
        ),
        ("participant_id\tcase\tpni\na\tb\t1\t\nc\td\t0\t\n", "row 2 has 4 fields.*3 columns"),
        ("participant_id\tcase\tpni\na\tb\n", "row 2 has 2 fields"),
    ],
)
def test_a_bad_table_is_an_input_error(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_participants(participants(tmp_path, text), "pni")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"labels": 3}'])
def test_a_bad_description_is_an_input_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match="not nnU-Net's description"):
        read_description(tmp_path)
