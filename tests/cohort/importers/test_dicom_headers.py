from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neonet3d.cohort.importers.dicom_headers import list_files, read_series
from neonet3d.errors import InputError


def test_series_are_grouped_by_patient_and_uid(make_series: Callable[..., Any]) -> None:
    first = make_series(patient="B", SeriesNumber=12)
    make_series(patient="B", SeriesNumber=7, StudyInstanceUID=first.datasets[0].StudyInstanceUID)
    make_series(patient="A")
    (first.folder / "notes.txt").write_text("no DICOM")
    (first.folder / "empty").write_bytes(b"")
    seen: list[int] = []
    found, others = read_series(
        first.folder, list_files(first.folder), advance=lambda n=1, note="": seen.append(n)
    )
    assert [(s.patient, s.number, len(s.frames)) for s in found] == [
        ("A", "5", 6),
        ("B", "7", 6),
        ("B", "12", 6),
    ]
    assert others == 2
    assert len(seen) == 20


def test_without_uids_a_series_is_a_folder(make_series: Callable[..., Any]) -> None:
    blank = {"PatientID": "", "StudyInstanceUID": "", "SeriesInstanceUID": ""}
    first = make_series("tree/one", **blank)
    make_series("tree/two/deep", **blank)
    tree = first.folder.parent
    found, _ = read_series(tree, list_files(tree))
    assert [(s.patient, s.uid, len(s.frames)) for s in found] == [
        ("one", "", 6),
        (str(Path("two") / "deep"), "", 6),
    ]


def test_a_link_to_nothing_is_no_missing_slice(make_series: Callable[..., Any]) -> None:
    """git-annex leaves such links; without them the series would only be shorter."""
    written = make_series()
    written.files[-1].unlink()
    written.files[-1].symlink_to("absent")
    with pytest.raises(InputError, match=rf"{written.files[-1].name} is a link to a file"):
        list_files(written.folder)


def test_a_header_that_cannot_be_read_is_refused(make_series: Callable[..., Any]) -> None:
    written = make_series()
    path = written.files[2]
    whole = path.read_bytes()
    for damaged, sentence in (
        (whole[:300], "is cut short"),
        (whole[:500], "is cut short"),
        (whole.replace(b"0.9\\0.8", b"x.9\\0.8"), "cannot be read"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"{path.name}: the DICOM header {sentence}"):
            read_series(written.folder, list_files(written.folder))
    path.write_bytes(whole)
    path.rename(path.with_name("a.dcm"))
    path.with_name("a.dcm").write_bytes(b"no preamble" * 20)
    with pytest.raises(InputError, match=r"a\.dcm is no DICOM file: 'DICM'"):
        read_series(written.folder, list_files(written.folder))
