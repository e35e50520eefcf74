from __future__ import annotations

import pytest

from neonet3d.errors import InputError
from neonet3d.types import LabelSchema, no_advance


def test_the_position_is_the_voxel_value() -> None:
    schema = LabelSchema.from_mapping({"tumour": 2, "background": 0, "liver": 1})
    assert schema.names == ("background", "liver", "tumour")
    assert [schema.value(name) for name in schema.names] == [0, 1, 2]
    assert len(schema) == 3
    assert "tumour" in schema
    assert "spleen" not in schema
    assert LabelSchema.from_mapping(schema.as_mapping()) == schema


def test_an_unknown_class_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"no class 'vein' .*\['background', 'liver'\]"):
        LabelSchema(("background", "liver")).value("vein")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"background": 0, "liver": 2}, "without a gap"),
        ({"background": 0, "liver": 0}, "without a gap"),
        ({"liver": 0, "background": 1}, "does not begin with 'background'"),
        ({}, "does not begin with 'background'"),
        ({"background": 0, "whole": [1, 2]}, r"'whole' has the value \[1, 2\]"),
        ({"background": 0, "liver": "1"}, "not a whole number"),
    ],
)
def test_a_bad_mapping_is_an_input_error(labels: dict[str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        LabelSchema.from_mapping(labels)


def test_a_name_stands_for_one_class() -> None:
    with pytest.raises(InputError, match="names a class twice"):
        LabelSchema(("background", "liver", "liver"))


def test_progress_may_be_ignored() -> None:
    no_advance()
    no_advance(3, note="case")
