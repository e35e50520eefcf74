from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from neonet3d.errors import InputError
from neonet3d.metrics.interval import Interval
from neonet3d.study.results import StudyResults

UNKNOWN = Interval(math.nan, math.nan, math.inf, 1, None, "percentile bootstrap")


def same(a: object, b: object) -> bool:
    """Equal, where nan equals nan."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return a == b


def test_results_return_from_json(finished: tuple[Path, StudyResults]) -> None:
    run, results = finished
    again = StudyResults.read(run)
    assert same(again.model_dump(), results.model_dump())
    assert isinstance(again.psnr_db, Interval)


def test_nan_and_infinity_return_from_json(
    finished: tuple[Path, StudyResults], tmp_path: Path
) -> None:
    """An interval that cannot be known is nan, at every depth."""
    _, results = finished
    arm = results.arms[0].model_copy(update={"auc": UNKNOWN, "fold_aucs": (math.nan, 0.5)})
    score = type(results.fidelity[0])(
        **{**vars(results.fidelity[0]), "kid_low": math.nan, "kid_high": math.nan}
    )
    unknown = results.model_copy(
        update={
            "psnr_db": UNKNOWN,
            "arms": (arm, *results.arms[1:]),
            "ceiling_auc": None,
            "segmentation": {"tumour": UNKNOWN},
            "fidelity": (score,),
        }
    )
    (tmp_path / "results.json").write_text(unknown.model_dump_json())
    again = StudyResults.read(tmp_path)
    assert same(again.model_dump(), unknown.model_dump())
    assert math.isnan(again.segmentation["tumour"].value)
    assert again.psnr_db.high == math.inf
    assert math.isnan(again.arms[0].fold_aucs[0])


def test_unknown_keys_are_refused(finished: tuple[Path, StudyResults], tmp_path: Path) -> None:
    record = json.loads((finished[0] / "results.json").read_text()) | {"accuracy": 1.0}
    (tmp_path / "results.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="accuracy"):
        StudyResults.read(tmp_path)
