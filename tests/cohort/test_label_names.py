from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.label_names import is_label_table, label_names, label_table
from neonet3d.cohort.nifti import note_header, read_label_names, read_nifti
from neonet3d.cohort.volume import Volume, read_label_map
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "portal_vein", "lésion <2 & 3>"))
NAMES = {1: "liver", 2: "portal_vein", 3: "lésion <2 & 3>"}


def mask() -> Volume:
    data = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6) % 4
    return Volume(data, np.diag([1.0, 2.0, 3.0, 1.0]), user_axes=("L", "P", "S"))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_names_come_back_and_voxels_are_untouched(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mask{ending}"
    mask().write(path, schema=SCHEMA)
    assert read_label_names(path) == NAMES
    np.testing.assert_array_equal(read_label_map(path, n_classes=4).data, mask().data)
    image = nib.load(path)  # any warning is an error here
    assert image.header.get_intent("code") == (1002, (), "labels")
    assert [extension.get_code() for extension in image.header.extensions] == [30]
    np.testing.assert_array_equal(np.asarray(image.dataobj)[::-1, ::-1], mask().data)


def test_without_names_there_is_none(tmp_path: Path) -> None:
    mask().write(tmp_path / "mask.nii.gz")
    assert read_label_names(tmp_path / "mask.nii.gz") is None
    assert nib.load(tmp_path / "mask.nii.gz").header.get_intent("code")[0] == 0
    assert label_names([], "mask") is None


def test_a_table_as_total_segmentator_writes_it() -> None:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?> <CaretExtension>  <Date><![CDATA[2013]]></Date>'
        '<VolumeInformation Index="0">   <LabelTable>\n'
        '<Label Key="5" Red="1.0" Green="0" Blue="0" Alpha="1"><![CDATA[liver]]></Label>\n'
        "</LabelTable></VolumeInformation></CaretExtension>\n              "
    )
    extension = Nifti1Extension(0, text.encode())
    assert label_names([extension], "mask") == {5: "liver"}
    assert not is_label_table(extension)  # it holds a date as well


def test_a_table_with_more_than_names_is_text() -> None:
    table = label_table(SCHEMA)
    assert is_label_table(table)
    more = table.content.replace(b"<VolumeType>", b"<Name>Miller</Name><VolumeType>")
    assert not is_label_table(Nifti1Extension(30, more))
    assert not is_label_table(Nifti1Extension(6, b"a comment"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "b">]><CaretExtension/>', "defines entities"),
        (b"<CaretExtension><Label", "cannot be read"),
        (b"<CaretExtension><Label>liver</Label></CaretExtension>", "cannot be read"),
    ],
)
def test_a_damaged_table_is_a_sentence(text: bytes, said: str) -> None:
    with pytest.raises(InputError, match=f"case_1: .*{said}.* Export the mask again"):
        label_names([Nifti1Extension(30, text)], "case_1")


def test_masks_of_a_cohort_know_their_names(make_cohort: Callable[..., Cohort]) -> None:
    case = next(iter(make_cohort([0, 1])))
    assert case.mask_path is not None
    assert read_label_names(case.mask_path) == {1: "liver", 2: "tumour"}
    # What the package wrote itself is no text to warn of.
    assert note_header(read_nifti(case.mask_path, case.name)).text == ()
    assert read_label_names(case.image_path) is None
