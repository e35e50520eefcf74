"""A tree of DICOM files becomes a cohort that names nobody."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.dicom import choose_series, import_dicom, list_series
from neonet3d.cohort.importers.dicom_headers import list_files
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError

PATIENTS = ("P-1", "P-2", "P-3")


def ranked() -> list[str]:
    return sorted(PATIENTS, key=lambda p: hashlib.sha256(p.encode()).hexdigest())


@pytest.fixture
def tree(make_series: Callable[..., Any], tmp_path: Path) -> Path:
    """Three patients with an HBP and a localiser each, all files in one folder."""
    for patient in PATIENTS:
        make_series(patient=patient)
        make_series(patient=patient, description="localizer", n=3, SeriesNumber=1)
    return tmp_path / "dicom"


def everything_written(folder: Path) -> bytes:
    import gzip

    parts = []
    for path in sorted(folder.rglob("*")):
        parts.append(str(path.relative_to(folder)).encode())
        if path.is_file():
            raw = path.read_bytes()
            parts.append(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    return b"\n".join(parts)


def test_each_patient_becomes_one_case_without_a_name(tree: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    table = pd.DataFrame(
        {"case": ["P-2", "P-3", "excluded"], "pni": ["1", "0", "1"], "age": ["61", "50", "1"]},
        dtype=object,
    )
    cohort = import_dicom(
        tree,
        tmp_path / "out",
        labels=table,
        outcome_name="pni",
        advance=lambda n=1, note="": seen.append(note),
    )
    names = [f"case_000{i}" for i in (1, 2, 3)]
    assert seen == names == [case.name for case in cohort] == [c.participant for c in cohort]
    by_patient = dict(zip(ranked(), cohort, strict=True))
    assert [by_patient[p].outcome for p in PATIENTS] == [None, 1, 0]
    assert cohort.channel == "MR"
    written = everything_written(cohort.root)
    for secret in (b"P-1", b"P-2", b"P-3", b"Doe", b"Jane", b"1950", b"20200202", b"1.2.826"):
        assert secret not in written


def test_an_import_is_the_same_when_it_is_repeated(tree: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        import_dicom(tree, tmp_path / name)
        for path in list_files(tree)[:4]:  # other names, another order
            path.rename(path.with_name(f"z{path.name}"))
    assert everything_written(tmp_path / "a") == everything_written(tmp_path / "b")


def test_patient_ids_are_kept_on_demand(
    tree: Path, tmp_path: Path, make_series: Callable[..., Any]
) -> None:
    cohort = import_dicom(tree, tmp_path / "out", keep_ids=True)
    assert [case.participant for case in cohort] == ranked()
    assert [case.name for case in cohort] == ["case_0001", "case_0002", "case_0003"]
    make_series(patient="Doe Jane")
    with pytest.raises(InputError, match="the PatientID 'Doe Jane' may hold only"):
        import_dicom(tree, tmp_path / "b", keep_ids=True)
    assert not (tmp_path / "b").exists()


def test_a_table_that_would_give_ids_away_is_refused(tree: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"case": ["P-2"], "mrn": ["P-2"]}, dtype=object)
    with pytest.raises(InputError, match=r"column 'mrn' .* holds PatientIDs"):
        import_dicom(tree, tmp_path / "out", labels=table)
    import_dicom(tree, tmp_path / "out", labels=table, keep_ids=True)


def test_the_table_of_series_says_why_not(tree: Path) -> None:
    (tree / "notes.txt").write_text("no DICOM")
    listed, others = list_series(tree)
    assert (len(listed), others) == (6, 1)
    first, second = (entry.row(keep_ids=False) for entry in listed[:2])
    assert first == {
        "patient": "case_0001",
        "study": 1,
        "number": "1",
        "description": "localizer",
        "modality": "MR",
        "images": 3,
        "size": "7x5",
        "spacing_mm": None,
        "orientation": None,
        "transfer_syntax": "Explicit VR Little Endian",
        "usable": False,
        "why_not": "3 slices are a localiser or a part, not a volume (4 are needed). "
        "Choose another series.",
    }
    assert (second["usable"], second["why_not"]) == (True, None)
    assert (second["spacing_mm"], second["orientation"]) == ([0.8, 0.9, 3.0], "axial LPS")
    assert listed[0].row(keep_ids=True)["patient"] == ranked()[0]


@pytest.mark.parametrize("text", ["pv", "PV", "6", "uid"])
def test_one_of_several_series_is_chosen(
    tree: Path, make_series: Callable[..., Any], text: str, tmp_path: Path
) -> None:
    chosen = [make_series(patient=p, description="T1 PV phase", SeriesNumber=6) for p in PATIENTS]
    with pytest.raises(InputError, match=r"(?s)3 of 3 .*several .*'T1 PV phase', 6 images"):
        import_dicom(tree, tmp_path / "out")
    if text == "uid":
        text = chosen[0].datasets[0].SeriesInstanceUID
        with pytest.raises(InputError, match=r"2 of 3 patients have no series .*\n .*none matches"):
            choose_series(list_series(tree)[0], text)
        return
    cohort = import_dicom(tree, tmp_path / "out", series=text)
    values = sorted(int(case.read_image().data.sum()) for case in cohort)
    assert values == sorted(int(written.stored.sum()) for written in chosen)


def test_a_patient_without_a_usable_series_is_refused(
    tree: Path, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    make_series(patient="P-9", description="scout", n=2)
    with pytest.raises(InputError, match=r"1 of 4 patients have no .*\n  case_.*'scout', 2 slices"):
        import_dicom(tree, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_modalities_are_not_mixed(
    tree: Path, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    make_series(patient="P-9", Modality="CT")
    with pytest.raises(InputError, match="several modalities, CT and MR"):
        import_dicom(tree, tmp_path / "out")


def test_reports_make_no_patient(
    tree: Path, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    written = make_series(patient="P-9", n=1, Modality="SR")
    del written.datasets[0].Rows, written.datasets[0].Columns, written.datasets[0].PixelData
    written.rewrite(0)
    listed, _ = list_series(tree)
    assert [entry.fault for entry in listed if not entry.case] == [
        "no image (a report, a plan or a presentation state); nothing to import."
    ]
    assert len(import_dicom(tree, tmp_path / "out")) == 3


def test_a_tree_of_masks_alone_is_refused(make_series: Callable[..., Any], tmp_path: Path) -> None:
    make_series(Modality="SEG")
    with pytest.raises(
        InputError, match=r"no series of images, only masks.*'--masks' were exchanged"
    ):
        import_dicom(tmp_path / "dicom", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_slice_leaves_nothing(
    tree: Path, make_series: Callable[..., Any], tmp_path: Path
) -> None:
    written = make_series(patient="P-9")
    whole = written.files[3].read_bytes()
    written.files[3].write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"case_\d{4}: the pixels of .* cannot be decoded"):
        import_dicom(tree, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["dicom"]


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no DICOM")
    with pytest.raises(InputError, match=r"holds no DICOM file \(1 others\)"):
        list_series(tmp_path)


def test_the_real_ct_lies_under_its_mask(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """JPEG 2000 slices; the mask runs the other way, so pairing by index would fail."""
    source = real_data("totalseg_dicom_ct")
    cohort = import_dicom(
        source,
        tmp_path / "out",
        masks=source / "example_seg_dicom.nii.gz",
        class_map=ClassMap.parse("liver=5"),
    )
    description = json.loads((cohort.root / "dataset.json").read_text())
    assert description["neonet3d"]["source"] == {"layout": "DICOM", "files_not_dicom": 1}
    assert cohort.channel == "CT"
    image, mask = cohort["case_0001"].read_with_mask()
    assert image.shape == (512, 512, 20)
    assert image.spacing_mm == pytest.approx((0.9765625, 0.9765625, 2.0))
    liver = image.data[mask.data == 1]
    assert liver.mean() == pytest.approx(89, abs=5)
    assert liver.std() < 60

    def mean_in(moved: Volume) -> float:
        return float(np.mean(image.data[moved.data == 1]))

    assert abs(mean_in(mask.with_data(np.flip(mask.data, 1).copy())) - 89) > 20
