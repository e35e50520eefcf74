from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.msd import import_msd
from neonet3d.cohort.volume import corner_distance_mm, read_label_map, read_volume
from neonet3d.errors import InputError

LPS = np.diag([-0.8, -0.9, 2.0, 1.0])


def describe(folder: Path, **changes: object) -> None:
    names = ("liver_1", "liver_2", "._liver_1")
    description = {
        "name": "Liver",
        "labels": {"0": "Background", "1": "Liver", "2": "Hepatic Vein"},
        "modality": {"0": "MRI"},
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in names
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(description | changes))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "msd"
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for name in ("liver_1", "liver_2"):
        image = rng.integers(1, 200, (6, 7, 8, 1)).astype(np.int16)
        mask = rng.integers(0, 3, (6, 7, 8)).astype(np.uint8)
        nib.save(nib.Nifti1Image(image, LPS), folder / "imagesTr" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(mask, LPS), folder / "labelsTr" / f"{name}.nii.gz")
    describe(folder)
    return folder


def test_cases_come_through_unchanged(source: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def advance(n: int = 1, note: str = "") -> None:
        seen.append(note)

    cohort = import_msd(source, tmp_path / "out", advance=advance)
    assert seen == ["liver_1", "liver_2"]
    assert cohort.root == tmp_path / "out"
    assert cohort.schema.names == ("background", "liver", "hepatic_vein")
    assert cohort.channel == "MRI"
    for case in cohort:
        image, mask = case.read_with_mask()
        brought = read_volume(source / "imagesTr" / f"{case.name}.nii.gz")
        drawn = read_label_map(source / "labelsTr" / f"{case.name}.nii.gz", n_classes=3)
        np.testing.assert_array_equal(image.data, brought.data)
        np.testing.assert_array_equal(mask.data, drawn.data)
        assert corner_distance_mm(image, brought) < 1e-4
        assert image.user_axes == ("L", "P", "S")


def test_a_table_gives_outcomes_patients_and_further_columns(source: Path, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"case": ["liver_2"], "participant_id": ["p7"], "pni": ["1"], "age": ["61"]}, dtype=object
    )
    cohort = import_msd(source, tmp_path / "out", labels=table, outcome_name="pni")
    assert [case.outcome for case in cohort] == [None, 1]
    assert [case.participant for case in cohort] == ["liver_1", "p7"]
    written = (cohort.root / "participants.tsv").read_text()
    assert (
        written
        == "participant_id\tcase\tpni\tage\nliver_1\tliver_1\tn/a\tn/a\np7\tliver_2\t1\t61\n"
    )


def test_a_damaged_case_is_named_and_nothing_is_left(source: Path, tmp_path: Path) -> None:
    path = source / "labelsTr" / "liver_2.nii.gz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"liver_2: .*damaged"):
        import_msd(source, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["msd"]


def test_a_mask_of_another_grid_is_refused(source: Path, tmp_path: Path) -> None:
    path = source / "labelsTr" / "liver_1.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((6, 7, 8), np.uint8), np.eye(4)), path)
    with pytest.raises(InputError, match=r"liver_1: image is .* but its mask is"):
        import_msd(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training": 3}, "no list 'training'"),
        ({"training": []}, "lists no training case"),
        ({"training": ["imagesTr/liver_1.nii.gz"]}, "names no image"),
        ({"training": [{"image": "../liver_1.nii.gz"}]}, "outside"),
        ({"training": [{"image": "/etc/passwd"}]}, "outside"),
        ({"training": [{"image": "a/x.nii.gz"}, {"image": "b/x.nii.gz"}]}, "case x twice"),
        ({"training": [{"image": "imagesTr/absent.nii.gz"}]}, "absent: there is no file"),
        ({"labels": {"background": 0}}, "not a map such as"),
        ({"labels": {"0": "background", "1": "Vein ", "2": "vein"}}, "have the same name"),
        ({"labels": {"0": "background", "2": "liver"}}, "without a gap"),
        ({"labels": {"0": "background", "1": "liver"}}, "does not name: 2"),
    ],
)
def test_a_bad_description_is_refused(
    source: Path, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    describe(source, **changes)
    with pytest.raises(InputError, match=sentence):
        import_msd(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masks_may_be_missing(source: Path, tmp_path: Path) -> None:
    describe(source, training=[{"image": "./imagesTr/liver_1.nii.gz"}])
    assert import_msd(source, tmp_path / "out")["liver_1"].mask_path is None


def test_the_real_hippocampus(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The first 24 cases of the benchmark; all 160 take over 2 s."""
    source, part = real_data("Task04_Hippocampus"), tmp_path / "part"
    description = json.loads((source / "dataset.json").read_text())
    part.mkdir()
    for folder in ("imagesTr", "labelsTr"):
        (part / folder).symlink_to(source / folder)
    shortened = description | {"training": description["training"][:24]}
    (part / "dataset.json").write_text(json.dumps(shortened))
    cohort = import_msd(part, tmp_path / "out")
    assert len(cohort) == 24
    assert cohort.schema.names == ("background", "anterior", "posterior")
    _, mask = cohort["hippocampus_001"].read_with_mask()
    assert np.unique(mask.data).tolist() == [0, 1, 2]


def test_classes_may_be_kept_by_value_or_name(source: Path, tmp_path: Path) -> None:
    cohort = import_msd(source, tmp_path / "out", class_map=ClassMap.parse("vein=hepatic_vein"))
    assert cohort.schema.names == ("background", "vein")
    brought = read_label_map(source / "labelsTr" / "liver_1.nii.gz", n_classes=3)
    _, mask = cohort["liver_1"].read_with_mask()
    np.testing.assert_array_equal(mask.data, brought.data == 2)
    with pytest.raises(InputError, match=r"no class '5' for 'liver'; it has"):
        import_msd(source, tmp_path / "b", class_map=ClassMap.parse("liver=5"))
