from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import stratified_folds
from neonet3d.cohort.splits import pick_fold, read_splits, write_splits
from neonet3d.errors import InputError


@pytest.fixture
def cohort(make_cohort: Callable[..., Cohort]) -> Cohort:
    """Six cases of five patients: case_004 and case_005 are both of p4."""
    patients = ["p0", "p1", "p2", "p3", "p4", "p4"]
    return make_cohort([0, 1, 0, 1, 0, 0], participants=patients)


def numbered(*numbers: int) -> list[str]:
    return [f"case_{number:03d}" for number in numbers]


def write(path: Path, train: list[str], val: list[str]) -> Path:
    path.write_text(json.dumps([{"train": train, "val": val}]))
    return path


def test_what_was_written_is_read(make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    cohort = make_cohort([0, 1] * 6, participants=[f"p{i // 2 * 2 + i % 2}" for i in range(12)])
    folds = stratified_folds(cohort, 3, seed=5)
    write_splits(tmp_path / "splits.json", folds)
    assert read_splits(tmp_path / "splits.json", cohort) == folds
    entries = json.loads((tmp_path / "splits.json").read_text())
    assert [set(entry) for entry in entries] == [{"train", "val"}] * 3
    write_splits(tmp_path / "again.json", folds)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "splits.json").read_bytes()


def test_a_case_may_be_left_out(cohort: Cohort, tmp_path: Path) -> None:
    (fold,) = read_splits(write(tmp_path / "s.json", numbered(0, 1), numbered(3)), cohort)
    assert [case.name for case in fold.training] == numbered(0, 1)
    assert [case.name for case in fold.held_out] == numbered(3)


@pytest.mark.parametrize(
    ("train", "val", "sentence"),
    [
        ([0, 1, 8, 9], [2], r"fold 0: 'train' names 2 cases that .* \('case_008', 'case_009'\)"),
        ([0, 1], [7], "'val' names 1 cases that .* does not have"),
        ([0, 1, 2], [2, 3], "'case_002' stand in 'train' and in 'val'"),
        ([0, 1, 4], [2, 5], "patient p4 stands on both sides, with case_004 in 'train' and case_0"),
        ([0, 2, 4, 5], [1, 3], "no case of 'train' has pni = 1"),
        ([1, 3], [0, 2], "no case of 'train' has pni = 0"),
        ([], [0, 2], "'train' is empty"),
        ([0, 1], [], "'val' is empty"),
        ([0, 1, 1], [2], "'train' names 'case_001' twice"),
    ],
)
def test_a_division_that_cannot_be_meant_is_refused(
    cohort: Cohort, tmp_path: Path, train: list[int], val: list[int], sentence: str
) -> None:
    path = write(tmp_path / "s.json", numbered(*train), numbered(*val))
    with pytest.raises(InputError, match=sentence) as caught:
        read_splits(path, cohort)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[1]", '[{"train": ["a"]}]', '[{"train": "a", "val": ["b"]}]', "[[1], [2]]"],
)
def test_what_is_no_list_of_folds_is_refused(cohort: Cohort, tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(InputError, match=r"is not JSON|not a list of folds in nnU-Net's form"):
        read_splits(tmp_path / "s.json", cohort)
    with pytest.raises(InputError, match="There is no file"):
        read_splits(tmp_path / "absent.json", cohort)


def test_a_cohort_without_outcome_needs_no_classes(cohort: Cohort, tmp_path: Path) -> None:
    bare = replace(cohort, outcome_name=None)
    (fold,) = read_splits(write(tmp_path / "s.json", numbered(0, 2), numbered(1)), bare)
    assert len(fold.training) == 2


def test_synthetic_cases_are_not_divided(cohort: Cohort, tmp_path: Path) -> None:
    cases = (replace(cohort.cases[0], synthetic=True), *cohort.cases[1:])
    path = write(tmp_path / "s.json", numbered(0, 1), numbered(2))
    with pytest.raises(InputError, match="holds synthetic cases"):
        read_splits(path, replace(cohort, cases=cases))


def test_one_fold_is_picked(cohort: Cohort) -> None:
    folds = stratified_folds(cohort, 2, seed=0)
    assert pick_fold(folds, "1") is pick_fold(folds, "1/2") is folds[1]
    for choice in (None, "", "all", "-1", "1/2/3"):
        with pytest.raises(InputError, match="needs the fold to work on"):
            pick_fold(folds, choice)
    for choice in ("2", "0/5"):
        with pytest.raises(InputError, match="which has 2 folds"):
            pick_fold(folds, choice)
