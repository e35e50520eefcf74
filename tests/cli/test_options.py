from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from neonet3d.cli.options import (
    cases_to_apply,
    interval_json,
    interval_text,
    resolve,
    show,
    show_table,
    training_fold,
)
from neonet3d.cohort.cohort import Cohort
from neonet3d.config import load_config
from neonet3d.errors import InputError
from neonet3d.metrics.interval import Interval


def test_options_resolve_to_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("roi: {margin_mm: 7}\n")
    assert resolve("demo", None, None, None) == load_config("demo")
    found = resolve("demo", file, ["study.folds=4"], 9)
    assert (found.roi.margin_mm, found.study.folds, found.seed) == (7, 4, 9)


def test_training_and_application_divide_a_cohort_alike(
    make_cohort: Callable[..., Cohort],
) -> None:
    cohort = make_cohort([0, 1] * 6)
    for k in range(3):
        fold = training_fold(cohort.root, f"{k}/3", 4)
        applied = cases_to_apply(cohort.root, f"{k}/3", 4)
        assert [case.name for case in applied] == [case.name for case in fold.held_out]
        assert not {case.name for case in applied} & {case.name for case in fold.training}


def test_splits_of_the_users_own_divide_it(
    make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    cohort = make_cohort([0, 1] * 3)
    names = [case.name for case in cohort]
    splits = tmp_path / "splits_final.json"
    splits.write_text(
        json.dumps([{"train": names[2:], "val": names[:2]}, {"train": names[:4], "val": names[4:]}])
    )
    fold = training_fold(cohort.root, "1", 0, splits)
    assert [case.name for case in fold.training] == names[:4]
    assert [case.name for case in cases_to_apply(cohort.root, "1/2", 0, splits)] == names[4:]
    for choice in (None, "all", "2", "0/5"):
        with pytest.raises(InputError, match="--fold K with K from 0 to 1"):
            training_fold(cohort.root, choice, 0, splits)


def test_without_a_division_every_case_is_meant(make_cohort: Callable[..., Cohort]) -> None:
    cohort = make_cohort([0, 1, 0])
    assert len(training_fold(cohort.root, None, 0).training) == 3
    assert len(cases_to_apply(cohort.root, None, 0)) == 3
    split = make_cohort([0, 1, 0], splits=["train", "train", "test"], name="split")
    assert [case.name for case in cases_to_apply(split.root, None, 0)] == ["case_002"]
    assert len(cases_to_apply(split.root, "all", 0)) == 3


def test_a_cohort_of_test_cases_alone_is_applied_to_and_not_trained_on(
    make_cohort: Callable[..., Cohort],
) -> None:
    cohort = make_cohort([0, 1], splits=["test", "test"])
    assert len(cases_to_apply(cohort.root, None, 0)) == 2
    with pytest.raises(InputError, match="nobody is left to train on"):
        training_fold(cohort.root, None, 0)


def test_results_are_a_sentence_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    show({"n": 3}, as_json=False, sentence="Three.")
    assert capsys.readouterr().out == "Three.\n"
    show({"n": 3}, as_json=True, sentence="Three.")
    assert json.loads(capsys.readouterr().out) == {"n": 3}


def test_what_is_not_a_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    nested = {"auc": math.nan, "ends": [0.5, math.inf], "deep": {"x": ({"y": -math.inf}, 1)}}
    show(nested, as_json=True, sentence="")
    assert json.loads(capsys.readouterr().out) == {
        "auc": None,
        "ends": [0.5, None],
        "deep": {"x": [{"y": None}, 1]},
    }


def test_intervals_say_how_many_are_behind_them() -> None:
    interval = Interval(0.8123, 0.7009, 0.8891, 60, 20, "DeLong, 95%")
    assert interval_text(interval) == "0.812 [0.701, 0.889] n=60 (20 positive)"
    assert interval_text(Interval(1.5, 1, 2, 4, None, ""), digits=1) == "1.5 [1.0, 2.0] n=4"
    assert Interval(**interval_json(interval)) == interval


def test_a_table_keeps_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    long = "/data/" + "x" * 150 + "/case_0001_0000.nii.gz"
    show_table(("case", "problem"), [("[bold]a[/bold]", long), ("b", 3)])
    printed = capsys.readouterr().out
    assert "[bold]a[/bold]" in printed
    assert "…" not in printed
    assert long in "".join(part.strip() for part in printed.splitlines()).replace(" ", "")
