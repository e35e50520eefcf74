from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from neonet3d.cli.cohort import app
from neonet3d.cohort.check import check_folder
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.mend import mend_cohort
from neonet3d.errors import InputError

Make = Callable[..., Cohort]


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def root(make_cohort: Make) -> Path:
    return make_cohort([0, 1] * 5).root


@pytest.fixture
def broken(root: Path) -> Path:
    """Everything that has one right answer, on left-handed axes, in scaled 16-bit voxels."""
    image_path, mask_path = (
        root / "imagesTr/case_001_0000.nii.gz",
        root / "labelsTr/case_001.nii.gz",
    )
    affine = np.array([[0, -1.2, 0, 9], [0.7, 0, 0, -4], [0, 0, 3.0, 2], [0, 0, 0, 1]])
    voxels = np.arange(10 * 9 * 8, dtype=np.int16).reshape(10, 9, 8, 1)
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_slope_inter(0.5, 10)
    image.header["descrip"] = b"MUSTERMANN^ERIKA"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"born 1964-08-12"))
    image.set_sform(affine, code=2)
    image.set_qform(np.eye(4), code=1)
    nib.save(image, image_path)
    labels = np.asarray(nib.load(mask_path).dataobj).astype(np.float32)
    nib.save(nib.Nifti1Image(labels + np.float32(4e-4), affine), mask_path)
    table = root / "participants.tsv"
    text = table.read_text().replace("case_003\t1", "case_003\t1.0")
    table.write_bytes(b"\xef\xbb\xbf" + text.encode())
    (root / "README.txt").write_text("as it was")
    return root


def test_what_has_one_right_answer_is_mended_in_a_copy(broken: Path, tmp_path: Path) -> None:
    before = snapshot(broken)
    done = mend_cohort(broken, tmp_path / "out")
    assert snapshot(broken) == before
    assert check_folder(tmp_path / "out") == []
    said = {(entry.case, entry.file.partition("/")[0], entry.what) for entry in done}
    assert said == {
        (None, "participants.tsv", "byte-order mark removed"),
        ("case_003", "participants.tsv", "pni 1.0 -> 1"),
        ("case_001", "imagesTr", "shape (10, 9, 8, 1) -> (10, 9, 8)"),
        ("case_001", "imagesTr", "header text emptied: descrip, an extension"),
        ("case_001", "imagesTr", next(e.what for e in done if "qform" in e.what)),
        ("case_001", "imagesTr", next(e.what for e in done if "voxel size" in e.what)),
        ("case_001", "labelsTr", "labels float32 -> uint8"),
    }
    assert not any(entry.case == "case_000" for entry in done)


def test_the_voxels_their_place_and_their_type_stay(broken: Path, tmp_path: Path) -> None:
    mend_cohort(broken, tmp_path / "out")
    name = "imagesTr/case_001_0000.nii.gz"
    old, new = nib.load(broken / name), nib.load(tmp_path / "out" / name)
    np.testing.assert_array_equal(new.get_fdata(), old.get_fdata()[..., 0])
    np.testing.assert_array_equal(new.dataobj.get_unscaled(), old.dataobj.get_unscaled()[..., 0])
    assert new.get_data_dtype() == np.int16
    np.testing.assert_array_equal(new.affine, old.affine)
    np.testing.assert_allclose(new.get_qform(), new.affine, atol=1e-5)
    assert int(new.header["sform_code"]) == 2
    np.testing.assert_allclose(new.header.get_zooms(), (0.7, 1.2, 3.0), atol=1e-6)
    before, after = (Cohort.open(root)["case_001"].read() for root in (broken, tmp_path / "out"))
    np.testing.assert_array_equal(before[0].data, after[0].data)
    np.testing.assert_array_equal(before[1].data, after[1].data)
    assert before[0].user_axes == after[0].user_axes


def test_what_needs_no_mending_is_the_same_bytes(broken: Path, tmp_path: Path) -> None:
    mend_cohort(broken, tmp_path / "out")
    before, after = snapshot(broken), snapshot(tmp_path / "out")
    changed = {name for name in before if before[name] != after[name]}
    assert set(before) == set(after)
    assert changed == {
        "participants.tsv",
        "imagesTr/case_001_0000.nii.gz",
        "labelsTr/case_001.nii.gz",
    }


def test_what_has_no_right_answer_is_copied_and_listed(
    root: Path, tmp_path: Path, run_check: Callable[..., tuple[int, dict[str, object], str]]
) -> None:
    path = root / "labelsTr" / "case_004.nii.gz"
    image = nib.load(path)
    data = np.asarray(image.dataobj).astype(np.float32) / 2
    nib.save(nib.Nifti1Image(data, image.affine), path)
    damaged = root / "imagesTr" / "case_006_0000.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    before = snapshot(root)
    assert mend_cohort(root, tmp_path / "out") == []
    assert snapshot(tmp_path / "out") == snapshot(root) == before
    done = CliRunner().invoke(app, ["check", str(root), "--fix", str(tmp_path / "copy")])
    assert done.exit_code == 2
    assert "case_004" in done.stdout
    assert "case_006" in done.stdout
    assert "the mended copy; 0 things put right" in done.stdout


def test_the_command_says_what_it_mended(broken: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(broken), "--fix", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["errors"], found["warnings"]) == (0, 0)
    assert {entry["case"] for entry in found["mended"]} == {None, "case_001", "case_003"}


def test_empty_lines_of_the_table_are_not_copied(root: Path, tmp_path: Path) -> None:
    table = root / "participants.tsv"
    text = table.read_text()
    table.write_text("\n" + text.replace("\n", "\n\n").replace("case_003\t1", "case_003\t1.0"))
    assert [entry.what for entry in mend_cohort(root, tmp_path / "out")] == ["pni 1.0 -> 1"]
    assert (tmp_path / "out" / "participants.tsv").read_text() == text


def test_every_field_of_text_is_emptied(root: Path, tmp_path: Path) -> None:
    path = root / "imagesTr" / "case_001_0000.nii.gz"
    image = nib.load(path)
    image.header["data_type"] = b"MUSTERMANN"
    nib.save(image, path)
    assert [entry.what for entry in mend_cohort(root, tmp_path / "out")] == [
        "header text emptied: data_type"
    ]
    assert check_folder(tmp_path / "out") == []


def test_rows_that_cannot_be_used_stop_the_copy(root: Path, tmp_path: Path) -> None:
    table = root / "participants.tsv"
    table.write_text(table.read_text().replace("\tcase_002\t", "\t../x\t"))
    done = CliRunner().invoke(app, ["check", str(root), "--fix", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "Nothing was written: mend the table first" in done.stdout
    assert "'../x'" in done.stdout
    assert not (tmp_path / "out").exists()


def test_the_copy_never_lies_in_the_source_or_over_other_work(root: Path, tmp_path: Path) -> None:
    before = snapshot(root)
    for out in (root, root / "fixed"):
        with pytest.raises(InputError, match="lies in the cohort"):
            mend_cohort(root, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match="not an empty folder"):
        mend_cohort(root, tmp_path / "full")
    assert snapshot(root) == before


def test_a_link_to_elsewhere_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (root / "notes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InputError, match="leads out of the cohort"):
        mend_cohort(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["NIfTI-2", "big-endian", "qform only"])
def test_other_headers_are_mended_too(root: Path, tmp_path: Path, kind: str) -> None:
    """Both versions, both byte orders, and a file that has no sform."""
    path = root / "imagesTr" / "case_001_0000.nii.gz"
    affine = np.diag([-1.5, 1, 2, 1])
    voxels = np.arange(10 * 9 * 8, dtype=np.int16).reshape(10, 9, 8)
    version = nib.Nifti2Image if kind == "NIfTI-2" else nib.Nifti1Image
    header = version.header_class(endianness=">") if kind == "big-endian" else None
    image = version(voxels, affine, header)
    if kind == "qform only":
        image.set_qform(affine, code=1)
        image.set_sform(None, code=0)
    image.header["descrip"] = b"MUSTERMANN^ERIKA"
    nib.save(image, path)
    mask_path = root / "labelsTr" / "case_001.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(nib.load(mask_path).dataobj), affine), mask_path)
    assert [entry.what for entry in mend_cohort(root, tmp_path / "out")] == [
        "header text emptied: descrip"
    ]
    assert check_folder(tmp_path / "out") == []
    new = nib.load(tmp_path / "out" / path.relative_to(root))
    assert isinstance(new, version)
    np.testing.assert_array_equal(np.asarray(new.dataobj), voxels)
    np.testing.assert_allclose(new.affine, affine)
    assert bool(new.header["sform_code"]) == (kind != "qform only")
