from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.nnunet import import_nnunet
from neonet3d.errors import InputError

LPS = np.diag([-0.8, -0.9, 2.0, 1.0])


def describe(folder: Path, **changes: object) -> None:
    description = {
        "channel_names": {"0": "HBP"},
        "labels": {"background": 0, "liver": 1, "Hepatic vein": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description | changes))


def fill(folder: Path, ending: str = ".nii.gz", channels: int = 1) -> Path:
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for name in ("liver_1", "liver_2"):
        for channel in range(channels):
            image = (rng.integers(1, 200, (6, 7, 8)) + 1000 * channel).astype(np.int16)
            path = folder / "imagesTr" / f"{name}_{channel:04d}{ending}"
            nib.save(nib.Nifti1Image(image, LPS), path)
        mask = rng.integers(0, 3, (6, 7, 8)).astype(np.uint8)
        nib.save(nib.Nifti1Image(mask, LPS), folder / "labelsTr" / f"{name}{ending}")
    (folder / "imagesTr" / f"._liver_1_0000{ending}").write_text("macOS")
    describe(folder, file_ending=ending, channel_names={str(i): f"c{i}" for i in range(channels)})
    return folder


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_cases_come_through_unchanged(tmp_path: Path, ending: str) -> None:
    source = fill(tmp_path / "Dataset001", ending)
    table = pd.DataFrame({"case": ["liver_2"], "pni": ["1"]}, dtype=object)
    cohort = import_nnunet(source, tmp_path / "out", labels=table, outcome_name="pni")
    assert cohort.schema.names == ("background", "liver", "hepatic_vein")
    assert cohort.channel == "c0"
    assert [(case.name, case.outcome) for case in cohort] == [("liver_1", None), ("liver_2", 1)]
    image, mask = cohort["liver_2"].read_with_mask()
    brought = nib.load(source / "labelsTr" / f"liver_2{ending}")
    np.testing.assert_array_equal(mask.data, np.asarray(brought.dataobj)[::-1, ::-1])
    assert image.user_axes == ("L", "P", "S")


@pytest.mark.parametrize("channel", ["1", "c1"])
def test_one_of_several_channels_is_chosen(tmp_path: Path, channel: str) -> None:
    source = fill(tmp_path / "Dataset001", channels=2)
    cohort = import_nnunet(source, tmp_path / "out", channel=channel)
    assert cohort.channel == "c1"
    assert all(case.read_image().data.min() > 1000 for case in cohort)
    with pytest.raises(InputError, match=r"2 channels: 0 \(c0\), 1 \(c1\).*'--channel 0'"):
        import_nnunet(source, tmp_path / "b")
    with pytest.raises(InputError, match="--channel T1 names 0 of the channels"):
        import_nnunet(source, tmp_path / "b", channel="T1")
    (source / "imagesTr" / "liver_1_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"liver_1: there is no .*liver_1_0001.nii.gz"):
        import_nnunet(source, tmp_path / "b", channel="1")


def test_classes_may_be_kept_by_name_or_value_and_this_is_recorded(tmp_path: Path) -> None:
    source = fill(tmp_path / "Dataset001")
    classes = ClassMap.parse("vein=2")
    cohort = import_nnunet(source, tmp_path / "out", class_map=classes)
    assert cohort.schema.names == ("background", "vein")
    description = json.loads((cohort.root / "dataset.json").read_text())
    assert description["neonet3d"]["label_map"] == {"vein": ["2"]}
    assert description["neonet3d"]["source"]["layout"] == "nnU-Net v2"
    brought = np.asarray(nib.load(source / "labelsTr" / "liver_1.nii.gz").dataobj)[::-1, ::-1]
    _, mask = cohort["liver_1"].read_with_mask()
    np.testing.assert_array_equal(mask.data, brought == 2)
    by_name = import_nnunet(source, tmp_path / "b", class_map=ClassMap.parse("vein=hepatic_vein"))
    np.testing.assert_array_equal(by_name["liver_1"].read_with_mask()[1].data, mask.data)


def test_masks_may_be_missing(tmp_path: Path) -> None:
    source = fill(tmp_path / "Dataset001")
    (source / "labelsTr" / "liver_1.nii.gz").unlink()
    cohort = import_nnunet(source, tmp_path / "out")
    assert [case.mask_path is None for case in cohort] == [True, False]


def test_a_class_that_no_mask_holds_is_refused(tmp_path: Path) -> None:
    source = fill(tmp_path / "Dataset001")
    describe(source, labels={"background": 0, "a": 1, "b": 2, "tumour": 3})
    with pytest.raises(InputError, match=r"Of 2 masks none has a voxel of 't' \(tumour in"):
        import_nnunet(source, tmp_path / "out", class_map=ClassMap.parse("t=tumour"))
    assert [entry.name for entry in tmp_path.iterdir()] == ["Dataset001"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": None}, "'labels' is None"),
        ({"labels": {"background": 0, "liver": [1, 2], "tumour": 2}}, r"a region of .*\[1, 2\]"),
        ({"labels": {"background": 0, "liver": 1, "ignore": 2}}, "the label 'ignore'"),
        ({"labels": {"background": 0, "liver": "1"}}, "'1', not a whole number"),
        ({"labels": {"background": 0, "liver": 1}}, "does not name: 2"),
        ({"labels": {"background": 0, "liver": 2}}, "without a gap"),
        ({"labels": {"background": 0, "liver": 1, "Liver": 2}}, "have the same name"),
        ({"channel_names": []}, r"'channel_names' is \[\]"),
        ({"file_ending": ".mha"}, "'file_ending' is '.mha'"),
        ({"file_ending": ".nii"}, "holds no scan"),
        ({"dataset": {}}, "under 'dataset'"),
    ],
)
def test_a_bad_description_is_refused(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    source = fill(tmp_path / "Dataset001")
    describe(source, **changes)
    with pytest.raises(InputError, match=sentence):
        import_nnunet(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stray_files_are_refused(tmp_path: Path) -> None:
    source = fill(tmp_path / "Dataset001")
    mask = source / "labelsTr" / "liver_2.nii.gz"
    stray = mask.rename(mask.with_name("liver_3.nii.gz"))
    with pytest.raises(InputError, match=r"liver_3.nii.gz is a mask without a scan"):
        import_nnunet(source, tmp_path / "out")
    stray.rename(source / "imagesTr" / "liver_3.nii.gz")
    with pytest.raises(InputError, match="does not end in the number of a channel"):
        import_nnunet(source, tmp_path / "out")
