from __future__ import annotations

from pathlib import Path

import pytest

from neonet3d.cohort.importers.description import (
    class_values,
    is_nnunet,
    origin_of,
    read_dataset_json,
)
from neonet3d.errors import InputError


def test_the_two_layouts_are_told_apart() -> None:
    v2 = {"channel_names": {"0": "MR"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}
    decathlon = {"modality": {"0": "MRI"}, "labels": {"0": "background"}, "training": []}
    assert is_nnunet(v2)
    assert not is_nnunet(decathlon)
    assert not is_nnunet(v2 | decathlon)


def test_only_what_names_the_data_set_is_kept() -> None:
    described = {"name": "Liver", "licence": "CC BY", "numTraining": 3}
    assert origin_of(described, "nnU-Net v2") == {
        "layout": "nnU-Net v2",
        "name": "Liver",
        "licence": "CC BY",
    }


def test_class_names_that_become_the_same_are_refused() -> None:
    assert class_values({"Hepatic vein": 2}, Path("x")) == {"hepatic_vein": 2}
    with pytest.raises(InputError, match="have the same name"):
        class_values({"vein": 1, "Vein ": 2}, Path("x"))


@pytest.mark.parametrize(("text", "sentence"), [("{", "is not JSON"), ("[]", "is a list")])
def test_what_is_no_description_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_dataset_json(tmp_path)
