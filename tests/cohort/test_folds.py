from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Case, Cohort
from neonet3d.cohort.folds import choose_fold, repeated_folds, stratified_folds
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background",))


def cohort_of(
    outcomes: list[int], participants: list[str] | None = None, splits: list[str] | None = None
) -> Cohort:
    cases = tuple(
        Case(
            name=f"case_{index:03d}",
            participant=participants[index] if participants else f"patient_{index:03d}",
            outcome=outcome,
            split=splits[index] if splits else None,
            synthetic=False,
            image_path=Path("absent"),
            mask_path=None,
            schema=SCHEMA,
        )
        for index, outcome in enumerate(outcomes)
    )
    return Cohort(Path("somewhere"), SCHEMA, "pni", cases)


def names(cohort: Cohort) -> set[str]:
    return {case.name for case in cohort}


@pytest.mark.parametrize("seed", range(5))
def test_every_fold_has_its_share_of_positives(seed: int) -> None:
    """NeoNet's cohort: 44 of 128 positive in 5 folds is 8 or 9 of 25 or 26 in each."""
    cohort = cohort_of([1] * 44 + [0] * 84)
    folds = stratified_folds(cohort, 5, seed=seed)
    assert sorted(int(fold.held_out.outcomes.sum()) for fold in folds) == [8, 9, 9, 9, 9]
    assert all(len(fold.held_out) in (25, 26) for fold in folds)


def test_each_case_is_held_out_once() -> None:
    cohort = cohort_of([1] * 20 + [0] * 31)
    folds = stratified_folds(cohort, 4, seed=0)
    assert [fold.name for fold in folds] == ["fold-0", "fold-1", "fold-2", "fold-3"]
    assert Counter(case.name for fold in folds for case in fold.held_out) == dict.fromkeys(
        names(cohort), 1
    )
    for fold in folds:
        assert names(fold.training) | names(fold.held_out) == names(cohort)
        assert not names(fold.training) & names(fold.held_out)


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_stands_on_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    participants = [f"patient_{i}" for i in rng.integers(0, 40, 120)]
    outcomes = [int(participant.endswith(("1", "4", "7"))) for participant in participants]
    for fold in stratified_folds(cohort_of(outcomes, participants), 5, seed=seed):
        training = {case.participant for case in fold.training}
        assert not training & {case.participant for case in fold.held_out}
        assert 0.1 < fold.held_out.outcomes.mean() < 0.5


def test_the_seed_decides_and_repeats() -> None:
    cohort = cohort_of([1] * 20 + [0] * 30)
    held_out = [
        [names(fold.held_out) for fold in stratified_folds(cohort, 5, seed=seed)]
        for seed in (1, 1, 2)
    ]
    assert held_out[0] == held_out[1]
    assert held_out[0] != held_out[2]


def test_too_few_of_a_class_or_one_class_is_refused() -> None:
    with pytest.raises(InputError, match="4 patients with pni = 1, fewer than 5 folds"):
        stratified_folds(cohort_of([1] * 4 + [0] * 20), 5, seed=0)
    same = ["p1"] * 10 + [f"n{i}" for i in range(10)]
    with pytest.raises(InputError, match="1 patients with pni = 1"):
        stratified_folds(cohort_of([1] * 10 + [0] * 10, same), 5, seed=0)
    with pytest.raises(InputError, match="needs both classes"):
        stratified_folds(cohort_of([0] * 20), 5, seed=0)


def test_synthetic_cases_are_not_divided() -> None:
    cohort = cohort_of([1] * 10 + [0] * 10)
    cases = (replace(cohort.cases[0], synthetic=True), *cohort.cases[1:])
    with pytest.raises(InputError, match="holds synthetic cases"):
        stratified_folds(replace(cohort, cases=cases), 5, seed=0)


def test_a_cohort_without_outcome_is_divided_by_patient() -> None:
    cohort = replace(cohort_of([0] * 12), outcome_name=None)
    folds = stratified_folds(cohort, 4, seed=0)
    assert [len(fold.held_out) for fold in folds] == [3, 3, 3, 3]


def test_a_patient_on_both_sides_of_the_official_split_is_refused() -> None:
    cohort = cohort_of([0, 1] * 2, ["a", "b", "c", "a"], ["train", "train", "test", "test"])
    with pytest.raises(InputError, match="patient a stands on both sides"):
        choose_fold(cohort, None, seed=0)


def test_a_split_that_is_none_is_refused() -> None:
    """With 'Test' every command would train on everyone."""
    cohort = cohort_of([0, 1] * 2, splits=["train", "train", "Test", "test"])
    with pytest.raises(InputError, match=r"column split has 'Test' for .* train, val, test"):
        choose_fold(cohort, None, seed=0)
    assert len(choose_fold(cohort, "all", seed=0).training) == 4


def test_a_split_that_leaves_nobody_to_train_on_is_refused() -> None:
    cohort = cohort_of([0, 1] * 2, splits=["test"] * 4)
    with pytest.raises(InputError, match="'test' for every case, so nobody is left to train on"):
        choose_fold(cohort, None, seed=0)
    assert len(choose_fold(cohort, "all", seed=0).training) == 4


def test_the_official_split_is_the_default_where_there_is_one() -> None:
    splits = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    cohort = cohort_of([0, 1] * 6, splits=splits)
    fold = choose_fold(cohort, None, seed=0)
    assert fold.name == "official-split"
    assert {case.split for case in fold.training} == {"train", "val"}
    assert len(fold.held_out) == 4
    every = choose_fold(cohort, "all", seed=0)
    assert (len(every.training), len(every.held_out)) == (12, 0)
    assert choose_fold(cohort_of([0, 1] * 6), None, seed=0).name == "all"


def test_one_fold_of_many() -> None:
    cohort = cohort_of([0, 1] * 10)
    assert choose_fold(cohort, "2/5", seed=3) == stratified_folds(cohort, 5, seed=3)[2]


@pytest.mark.parametrize("choice", ["5/5", "0/1", "-1/5", "1", "a/b", "", "1/5/2"])
def test_a_malformed_choice_is_an_input_error(choice: str) -> None:
    with pytest.raises(InputError, match="is not K/N"):
        choose_fold(cohort_of([0, 1] * 10), choice, seed=0)


def test_repeats_divide_anew_and_hold_each_case_out_once() -> None:
    rng = np.random.default_rng(0)
    participants = [f"patient_{i}" for i in rng.integers(0, 40, 90)]
    outcomes = [int(participant.endswith(("1", "4", "7"))) for participant in participants]
    cohort = cohort_of(outcomes, participants)
    repeats = repeated_folds(cohort, 5, 4, seed=3)
    assert [len(folds) for folds in repeats] == [5] * 4
    assert repeats[0] == stratified_folds(cohort, 5, seed=3)
    assert repeats == repeated_folds(cohort, 5, 4, seed=3)
    assert repeats[2][1].name == "repeat-2-fold-1"
    divisions = set()
    for folds in repeats:
        held_out = [names(fold.held_out) for fold in folds]
        assert sum(map(len, held_out)) == len(cohort)
        assert set.union(*held_out) == names(cohort)
        divisions.add(frozenset(frozenset(part) for part in held_out))
        for fold in folds:
            training = {case.participant for case in fold.training}
            assert not training & {case.participant for case in fold.held_out}
            assert 0 < fold.held_out.outcomes.mean() < 1
    assert len(divisions) == 4


def test_a_repeat_of_one_seed_is_not_that_of_the_next() -> None:
    cohort = cohort_of([0, 1] * 20)
    first, second = (repeated_folds(cohort, 4, 2, seed=seed) for seed in (0, 1))
    assert names(first[1][0].held_out) != names(second[0][0].held_out)


def test_what_cannot_be_divided_cannot_be_divided_again() -> None:
    with pytest.raises(InputError, match="fewer than 5 folds"):
        repeated_folds(cohort_of([1] * 4 + [0] * 20), 5, 3, seed=0)
