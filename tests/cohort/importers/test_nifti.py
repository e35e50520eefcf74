from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.nifti import import_nifti
from neonet3d.cohort.volume import read_volume
from neonet3d.errors import InputError


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two scans, the first with a mask of values 5 and 300."""
    images, masks = tmp_path / "scans", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        image = nib.Nifti1Image(rng.normal(size=(6, 7, 8)).astype(np.float32), np.eye(4))
        nib.save(image, images / f"{name}.nii.gz")
    mask = np.zeros((6, 7, 8), np.int16)
    mask[1:3], mask[4] = 5, 300
    nib.save(nib.Nifti1Image(mask, np.eye(4)), masks / "a.nii")
    (images / "notes.txt").write_text("not read")
    return images, masks


def test_scans_and_masks_of_the_same_name_are_paired(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    images, masks = folders
    classes = ClassMap.parse("liver=5,tumour=300")
    cohort = import_nifti(images, tmp_path / "out", masks=masks, class_map=classes)
    assert [(case.name, case.mask_path is None) for case in cohort] == [("a", False), ("b", True)]
    _, mask = cohort["a"].read_with_mask()
    assert np.bincount(mask.data.ravel()).tolist() == [168, 112, 56]
    description = json.loads((cohort.root / "dataset.json").read_text())
    assert description["neonet3d"]["label_map"] == {"liver": ["5"], "tumour": ["300"]}
    without = import_nifti(images, tmp_path / "b")
    assert without.schema.names == ("background",)
    assert [case.mask_path for case in without] == [None, None]


def test_one_scan_and_its_mask(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    cohort = import_nifti(
        images / "b.nii.gz",
        tmp_path / "out",
        masks=masks / "a.nii",
        class_map=ClassMap.parse("liver=5"),
    )
    assert [case.name for case in cohort] == ["b"]
    assert cohort["b"].read_with_mask()[1].data.max() == 1


def test_values_are_listed_and_never_guessed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    held = r"\(1 files\) hold values without names: 5 \(112 voxels\), 300 \(56 voxels\)"
    with pytest.raises(InputError, match=held):
        import_nifti(images, tmp_path / "out", masks=masks)
    with pytest.raises(InputError, match="no class 'liver'"):
        import_nifti(images, tmp_path / "out", masks=masks, class_map=ClassMap.parse("liver=liver"))
    with pytest.raises(InputError, match=r"Of 1 masks none has a voxel of 'vein' \(7 in"):
        import_nifti(images, tmp_path / "out", masks=masks, class_map=ClassMap.parse("vein=7"))
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    classes = ClassMap.parse("liver=5")
    with pytest.raises(InputError, match=r"there are none. Add '--masks'"):
        import_nifti(images, tmp_path / "out", class_map=classes)
    with pytest.raises(InputError, match="Check '--masks'"):
        import_nifti(images, tmp_path / "out", masks=tmp_path / "absent", class_map=classes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no .nii"):
        import_nifti(images, tmp_path / "out", masks=tmp_path / "empty", class_map=classes)
    with pytest.raises(InputError, match=r"holds no .nii"):
        import_nifti(tmp_path / "empty", tmp_path / "out")
    nib.save(nib.Nifti1Image(np.full((6, 7, 8), 5, np.uint8), 2 * np.eye(4)), masks / "b.nii.gz")
    with pytest.raises(InputError, match=r"b: image is .* but its mask is"):
        import_nifti(images, tmp_path / "out", masks=masks, class_map=classes)
    (masks / "b.nii.gz").rename(masks / "c.nii.gz")
    with pytest.raises(InputError, match=r"1 of 2 masks have the name of no scan; .*c.nii.gz"):
        import_nifti(images, tmp_path / "out", masks=masks, class_map=classes)
    (masks / "c.nii.gz").rename(masks / "a.nii.gz")
    with pytest.raises(InputError, match="have the same name"):
        import_nifti(images, tmp_path / "out", masks=masks, class_map=classes)
    assert not (tmp_path / "out").exists()


def test_the_real_mr_and_ct(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """TotalSegmentator's masks have a hundred classes; both tasks call the liver 5."""
    source = real_data("totalseg_mr_ct")
    images, masks = tmp_path / "scans", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for name, scan, mask in (
        ("ct", "example_ct", "example_seg_fast_force_split"),
        ("mr", "example_mr_sm", "example_seg_mr"),
    ):
        (images / f"{name}.nii.gz").symlink_to(source / f"{scan}.nii.gz")
        (masks / f"{name}.nii.gz").symlink_to(source / f"{mask}.nii.gz")
    classes = ClassMap.parse("liver=5,spleen=1")
    cohort = import_nifti(images, tmp_path / "out", masks=masks, class_map=classes)
    assert [case.name for case in cohort] == ["ct", "mr"]
    image, mask = cohort["ct"].read_with_mask()
    assert image.shape == (122, 101, 112)
    liver = image.data[mask.data == 1]
    assert 40 < liver.mean() < 140  # HU
    assert mask.data.sum() > 0
    original = read_volume(source / "example_mr_sm.nii.gz")
    np.testing.assert_array_equal(cohort["mr"].read_image().data, original.data)
