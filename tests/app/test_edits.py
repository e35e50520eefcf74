"""Masks that were edited on the page: the source and its list of edits, nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from neonet3d.app.edits import EditedMask, edited_mask
from neonet3d.errors import InputError

Served = Any
TUMOUR = 2


def wanted(*edits: dict[str, object], case: int = 1) -> EditedMask:
    return EditedMask.model_validate({"case": case, "edits": edits})


def test_without_edits_it_is_the_mask_of_the_case(served: Served) -> None:
    session = served.session
    found = edited_mask(session.crops, session.card, wanted(case=2))
    case = session.crops.cases[1]
    mask = case.read_mask()
    assert mask is not None
    assert np.array_equal(found.label_map, mask.data)
    assert (found.name, found.source) == (case.name, case.digest())
    assert found.spacing_mm == pytest.approx(mask.spacing_mm)


def test_edits_are_done_in_their_order(served: Served) -> None:
    crops, card = served.session.crops, served.session.card

    def tumour(*edits: dict[str, object]) -> np.ndarray:
        return np.asarray(edited_mask(crops, card, wanted(*edits)).label_map == TUMOUR)

    old = tumour()
    grown = tumour({"kind": "grow", "by_mm": 4.0})
    assert grown.sum() > old.sum()
    assert grown[old].all()
    shifted = tumour({"kind": "shift", "by_mm": [6.0, 0.0, 0.0]})
    assert np.array_equal(shifted, np.roll(old, 1, 0))
    assert not tumour({"kind": "remove"}).any()
    insert = {"kind": "insert", "volume_ml": 8.0, "number": 3}
    drawn = tumour({"kind": "remove"}, insert)
    assert drawn.sum() * 0.36 == pytest.approx(8.0, abs=0.36)
    assert np.array_equal(drawn, tumour({"kind": "remove"}, insert))
    with pytest.raises(InputError, match="has a tumour already"):
        tumour(insert)
    with pytest.raises(InputError, match="no tumour to edit"):
        tumour({"kind": "remove"}, {"kind": "grow", "by_mm": 1.0})


def test_a_case_that_there_is_not(served: Served) -> None:
    with pytest.raises(InputError, match="There are 8 cases, and no number 9"):
        edited_mask(served.session.crops, served.session.card, wanted(case=9))


@pytest.mark.parametrize(
    "edit",
    [
        {"kind": "explode"},
        {"kind": "grow"},
        {"kind": "grow", "by_mm": "nan"},
        {"kind": "grow", "by_mm": 1e9},
        {"kind": "shift", "by_mm": [1.0]},
        {"kind": "insert", "volume_ml": -1, "number": 0},
        {"kind": "remove", "path": "/etc"},
    ],
)
def test_edits_that_make_no_sense_are_refused(edit: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        wanted(edit)


def test_edits_are_counted() -> None:
    with pytest.raises(ValidationError, match="at most 50"):
        wanted(*[{"kind": "remove"}] * 51)
