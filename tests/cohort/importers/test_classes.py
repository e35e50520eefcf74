from __future__ import annotations

import numpy as np
import pytest

from neonet3d.cohort.importers.classes import ClassMap, keep_classes
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError


def test_classes_are_named_in_order_and_joined() -> None:
    classes = ClassMap.parse("liver=5, vein=25,vein=24")
    assert classes.schema.names == ("background", "liver", "vein")
    assert classes.values(None, where="masks") == {5: 1, 25: 2, 24: 2}
    assert classes.as_mapping() == {"liver": ["5"], "vein": ["25", "24"]}
    known = {"portal vein": 25, "cava": 24, "five": 5}
    by_name = ClassMap.parse("liver=5,vein=portal vein")
    assert by_name.values(known, where="masks") == {5: 1, 25: 2}


def test_what_is_not_named_becomes_background() -> None:
    mask = Volume(np.array([[[0, 5, 25, 300]]], np.int32), np.eye(4))
    kept = keep_classes(mask, {5: 1, 300: 2})
    assert kept.data.dtype == np.uint8
    assert kept.data.ravel().tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not CLASS=VALUE"),
        ("liver", "'liver' is not CLASS=VALUE"),
        ("liver=", "is not CLASS=VALUE"),
        ("5=liver", "is not CLASS=VALUE"),
        ("background=1", "names the background"),
        ("liver=0", "names the background"),
        ("liver=5,vein=5", "gives '5' two classes"),
    ],
)
def test_a_bad_list_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ClassMap.parse(text)


def test_sources_must_exist() -> None:
    with pytest.raises(InputError, match="masks hold numbers alone"):
        ClassMap.parse("liver=Liver").values(None, where="masks")
    with pytest.raises(InputError, match=r"no class '7' for 'liver'; it has \{'a': 1\}"):
        ClassMap.parse("liver=7").values({"a": 1}, where="masks")
    with pytest.raises(InputError, match="gives the value 1 two classes"):
        ClassMap.parse("liver=1,vein=a").values({"a": 1}, where="masks")
