from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neonet3d.cohort.nifti import farthest_corner_mm, note_header, read_nifti

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def save(path: Path, image: nib.Nifti1Image) -> Path:
    nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("version", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_in_both_byte_orders(
    tmp_path: Path, suffix: str, version: type[nib.Nifti1Image], order: str
) -> None:
    header = version.header_class(endianness=order)
    image = version(VOXELS[..., None, None], np.diag([2.0, 3, 4, 1]), header)
    file = read_nifti(save(tmp_path / f"a{suffix}", image), "a")
    np.testing.assert_array_equal(file.data, VOXELS)
    assert (file.shape, file.spacing_mm) == ((3, 4, 5), (2.0, 3.0, 4.0))
    notes = note_header(file)
    assert (notes.text, notes.singleton_axes, notes.misleading_spacing_mm) == ((), True, None)


def test_scaling_is_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS * 0.5 + 10, np.eye(4))
    image.header.set_data_dtype(np.int16)
    file = read_nifti(save(tmp_path / "a.nii.gz", image), "a")
    np.testing.assert_allclose(file.data, VOXELS * 0.5 + 10, atol=1e-3)


def test_two_places_are_measured_at_the_farthest_corner(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, np.eye(4))
    image.set_sform(np.eye(4), code=1)
    image.set_qform(np.diag([1, 1, 1.5, 1]), code=1)
    notes = note_header(read_nifti(save(tmp_path / "a.nii", image), "a"))
    assert notes.places_apart_mm == pytest.approx(0.5 * 4)
    assert notes.misleading_spacing_mm == (1.0, 1.0, 1.5)
    image.set_qform(None, code=0)
    assert note_header(read_nifti(save(tmp_path / "a.nii", image), "a")).places_apart_mm is None


def test_a_file_that_says_nowhere_where_it_lies_is_noted(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, np.eye(4))
    assert not note_header(read_nifti(save(tmp_path / "a.nii", image), "a")).placeless
    image.set_sform(None, code=0)
    image.set_qform(np.eye(4), code=1)
    assert not note_header(read_nifti(save(tmp_path / "a.nii", image), "a")).placeless
    image.set_qform(np.eye(4), code=0)
    assert note_header(read_nifti(save(tmp_path / "a.nii", image), "a")).placeless


def test_every_field_of_text_is_looked_at(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, np.eye(4))
    image.header["data_type"] = b"MUSTERMANN"
    file = read_nifti(save(tmp_path / "a.nii.gz", image), "a")
    assert note_header(file).text == ("data_type",)


def test_a_displacement_is_that_of_the_farthest_corner() -> None:
    difference = np.zeros((4, 4))
    difference[0, 3], difference[1, 2] = 3, 1
    assert farthest_corner_mm(difference, (10, 10, 5)) == pytest.approx(5)
