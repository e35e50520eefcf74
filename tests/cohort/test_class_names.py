from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from neonet3d.cohort.check import check_cohort
from neonet3d.cohort.class_names import class_name, mend_of, misnamed_classes
from neonet3d.cohort.cohort import Cohort
from neonet3d.types import LabelSchema


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("liver", "portal_vein", "hepatic_vein", "tumour"), {}),
        (("Liver", "tumor"), {"Liver": "liver", "tumor": "tumour"}),
        (("liver", "cancer"), {"cancer": "tumour"}),
        (("Hepatic vein", "ICC"), {"Hepatic vein": "hepatic_vein", "ICC": "tumour"}),
        (("liver", "tumour", "cancer"), {}),
        (("anterior", "posterior"), {}),
        (("liver", "massive_spleen"), {}),
    ],
)
def test_names_that_look_like_ours(names: tuple[str, ...], found: dict[str, str]) -> None:
    assert misnamed_classes(LabelSchema(("background", *names))) == found


def test_class_names_are_the_fields() -> None:
    assert class_name(" Hepatic vein (left)") == "hepatic_vein_left"


def test_the_mend_names_both() -> None:
    assert "'Liver' to 'liver' and 'tumor' to 'tumour'" in mend_of(
        {"Liver": "liver", "tumor": "tumour"}
    )


def test_a_check_says_it_once(make_cohort: Callable[..., Cohort]) -> None:
    cohort = make_cohort([0, 1, 0], splits=["train", "train", "test"])
    names = tuple("tumor" if name == "tumour" else name for name in cohort.schema.names)
    found = [f for f in check_cohort(replace(cohort, schema=LabelSchema(names))) if f.case is None]
    assert [(f.severity, "organ like any other" in f.problem) for f in found] == [("warning", True)]
