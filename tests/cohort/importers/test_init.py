from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.importers import (
    ImportOptions,
    count_headers,
    import_cohort,
    plan_import,
    recognise,
)
from neonet3d.errors import InputError


def medmnist(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    made = {}
    for split in ("train", "val", "test"):
        made[f"{split}_images"] = rng.integers(0, 256, (2, 4, 4, 4)).astype(np.uint8)
        made[f"{split}_labels"] = np.array([[0], [1]], np.uint8)
    np.savez(folder / "vesselmnist3d.npz", **made)
    return folder / "vesselmnist3d.npz"


def test_a_medmnist_file_is_recognised(tmp_path: Path) -> None:
    source = medmnist(tmp_path)
    assert plan_import(source, ImportOptions()).n_cases == 6
    cohort = import_cohort(source, tmp_path / "out")
    assert cohort.outcome_name == "aneurysm"
    assert (
        import_cohort(source, tmp_path / "b", ImportOptions(outcome="shape")).outcome_name
        == "shape"
    )
    with pytest.raises(InputError, match="holds its own labels"):
        import_cohort(source, tmp_path / "c", ImportOptions(labels=tmp_path / "t.csv"))


def test_a_decathlon_folder_is_recognised(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    source = real_data("Task04_Hippocampus")
    assert plan_import(source, ImportOptions()).n_cases == 160
    table = tmp_path / "t.csv"
    table.write_text("case;pni\nhippocampus_1;1\n")
    with pytest.raises(InputError, match="No row of the table names a scan"):
        import_cohort(source, tmp_path / "out", ImportOptions(labels=table, outcome="pni"))
    with pytest.raises(InputError, match=r"Add '--labels TABLE.csv'"):
        import_cohort(source, tmp_path / "out", ImportOptions(outcome="pni"))
    assert not (tmp_path / "out").exists()


def test_anything_else_is_told_what_is_understood(
    tmp_path: Path, make_cohort: Callable[..., Cohort]
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"Understood are .*Decathlon.* MedMNIST3D"):
        import_cohort(tmp_path / "folder", tmp_path / "out")
    with pytest.raises(InputError, match="There is no"):
        import_cohort(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(InputError, match="is a cohort already"):
        recognise(make_cohort([0, 1]).root)


def test_a_patient_who_is_listed_twice_is_not_named(
    tmp_path: Path, make_series: Callable[..., Any]
) -> None:
    source, table = make_series(patient="P-7").folder, tmp_path / "t.csv"
    table.write_text("PatientID,pni\nP-7,1\nP-7,0\n")
    with pytest.raises(InputError, match="lists a case twice, in rows 2 and 3"):
        plan_import(source, ImportOptions(labels=table))
    with pytest.raises(InputError, match="lists the case 'P-7' twice"):
        plan_import(source, ImportOptions(labels=table, keep_ids=True))


def test_a_full_folder_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        import_cohort(medmnist(tmp_path), tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "keep"


def test_layouts_are_told_apart(
    tmp_path: Path, make_series: Callable[..., Any], make_cohort: Callable[..., Cohort]
) -> None:
    dicom = make_series("tree/deep").folder.parent
    assert recognise(dicom) == "DICOM"
    assert count_headers(dicom) == 6
    one = next(dicom.glob("deep/*"))
    assert (recognise(one), count_headers(one)) == ("DICOM", 1)
    nnunet = make_cohort([0, 1]).root
    (nnunet / "participants.tsv").unlink()  # what stays is nnU-Net's own layout
    assert (recognise(nnunet), count_headers(nnunet)) == ("nnU-Net", 0)
    assert recognise(nnunet / "imagesTr") == "NIfTI"
    assert recognise(next((nnunet / "imagesTr").iterdir())) == "NIfTI"
    cohort = import_cohort(nnunet, tmp_path / "out", ImportOptions(label_map="lesion=tumour"))
    assert cohort.schema.names == ("background", "lesion")
    masks = nnunet / "masks"
    (nnunet / "labelsTr").rename(masks)
    for path in masks.iterdir():
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    again = import_cohort(
        nnunet / "imagesTr",
        tmp_path / "again",
        ImportOptions(masks=masks, label_map="liver=1,tumour=2"),
    )
    assert again.schema.names == ("background", "liver", "tumour")
    assert len(import_cohort(dicom, tmp_path / "dicom")) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (ImportOptions(series="HBP"), "NIfTI data, and --series is for DICOM. Leave it out"),
        (ImportOptions(keep_ids=True), "--keep-ids is for DICOM"),
        (ImportOptions(channel="1"), "--channel is for nnU-Net"),
    ],
)
def test_an_option_of_another_layout_is_refused(
    make_cohort: Callable[..., Cohort], tmp_path: Path, options: ImportOptions, sentence: str
) -> None:
    source = make_cohort([0, 1]).root / "imagesTr"
    with pytest.raises(InputError, match=sentence):
        import_cohort(source, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
