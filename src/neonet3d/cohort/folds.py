"""Folds: which patients train and which are held out.

A stage is handed ``fold.training``, a ``Cohort`` in which the held-out patients do not occur. Folds
are stratified by outcome and grouped by patient, so no patient stands on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from neonet3d.cohort.cohort import Cohort
from neonet3d.errors import InputError

SPLITS = ("train", "val", "test")  # values of the column
LISTED = 3  # names that a sentence gives


@dataclass(frozen=True)
class Fold:
    """One division of a cohort.

    Attributes:
        name: such as ``fold-0``, ``official-split`` or ``all``.
        training: what may be fitted on.
        held_out: what is predicted afterwards; empty when a model is trained on every patient.
    """

    name: str
    training: Cohort
    held_out: Cohort


def refuse_synthetic(cohort: Cohort) -> None:
    """Only real patients are divided.

    Raises:
        InputError: the cohort holds synthetic cases.
    """
    if any(case.synthetic for case in cohort):
        raise InputError(
            f"{cohort.root} holds synthetic cases, which belong to the fold of their generator. "
            "Divide the real cohort first and synthesise inside each fold ('neonet3d study pni')."
        )


def stratified_folds(cohort: Cohort, n_folds: int, *, seed: int) -> list[Fold]:
    """Cross-validation folds, stratified by outcome where there is one, grouped by patient.

    Raises:
        InputError: fewer patients (or cases of a class) than folds.
    """
    refuse_synthetic(cohort)
    groups = np.array([case.participant for case in cohort])
    strata = cohort.outcomes if cohort.outcome_name else np.zeros(len(cohort), dtype=np.int64)
    for value in np.unique(strata):
        n_patients = len(set(groups[strata == value]))
        if n_patients < n_folds:
            kind = f" with {cohort.outcome_name} = {value}" if cohort.outcome_name else ""
            raise InputError(
                f"{cohort.root} has {n_patients} patients{kind}, fewer than {n_folds} folds. "
                "Use fewer folds or more patients."
            )
    if cohort.outcome_name and len(np.unique(strata)) < 2:
        raise InputError(
            f"Every case of {cohort.root} has {cohort.outcome_name} = {strata[0]}; "
            "a classifier needs both classes."
        )
    # Shuffled here: with shuffle=True, scikit-learn before 1.8 does not stratify.
    patients, index = np.unique(groups, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(patients))[index]
    cases = cohort.cases
    splits = StratifiedGroupKFold(n_folds).split(np.zeros(len(cases)), strata, shuffled)
    return [
        Fold(
            f"fold-{index}",
            cohort.subset(cases[i] for i in train),
            cohort.subset(cases[i] for i in test),
        )
        for index, (train, test) in enumerate(splits)
    ]


def repeated_folds(cohort: Cohort, n_folds: int, repeats: int, *, seed: int) -> list[list[Fold]]:
    """Cross-validation again and again, each time with another shuffle of the patients.

    What one division happens to give is averaged over several. Within a repeat each case is held
    out once, so out-of-fold predictions are pooled per repeat, never over repeats.

    Returns:
        One list of folds per repeat. The first is ``stratified_folds`` with the same seed; the
        folds of later ones are called ``repeat-1-fold-0`` and so on.

    Raises:
        InputError: as ``stratified_folds``.
    """
    divisions = [stratified_folds(cohort, n_folds, seed=seed)]
    for repeat in range(1, repeats):
        # Hashed, so that repeat 1 of seed 0 is not repeat 0 of seed 1.
        derived = int(np.random.SeedSequence((seed, repeat)).generate_state(1)[0])
        folds = stratified_folds(cohort, n_folds, seed=derived)
        divisions.append([replace(fold, name=f"repeat-{repeat}-{fold.name}") for fold in folds])
    return divisions


def choose_fold(cohort: Cohort, choice: str | None, *, seed: int) -> Fold:
    """The division that a single command works on.

    Args:
        choice: ``"K/N"`` for fold K of N; ``"all"`` for every patient; None for the official split
            in the column ``split`` (training is every value but ``test``), or else every patient.

    Raises:
        InputError: a malformed choice; for the official split a value that is none of ``SPLITS``,
            nobody to train on, or a patient on both sides.
    """
    if choice is None and any(case.split is not None for case in cohort):
        strange = [case for case in cohort if case.split not in (None, *SPLITS)]
        if strange:
            raise InputError(
                f"{cohort.root}: the column split has {strange[0].split!r} for "
                f"{strange[0].name}. Write one of {', '.join(SPLITS)} or leave it empty, or choose "
                "folds with --fold."
            )
        held_out = cohort.subset(case for case in cohort if case.split == "test")
        if len(held_out):
            training = cohort.subset(case for case in cohort if case.split != "test")
            if not len(training):
                raise InputError(
                    f"{cohort.root}: the column split has 'test' for every case, so nobody is left "
                    "to train on. Write train for some, or choose with --fold."
                )
            require_apart(training, held_out, f"{cohort.root}, column split", ("train", "test"))
            return Fold("official-split", training, held_out)
    if choice in (None, "all"):
        return Fold("all", cohort, cohort.subset([]))
    match = re.fullmatch(r"(\d+)/(\d+)", choice)
    if not match or not int(match[1]) < int(match[2]) or int(match[2]) < 2:
        raise InputError(f"--fold {choice!r} is not K/N with 0 <= K < N, such as 0/5, nor 'all'.")
    return stratified_folds(cohort, int(match[2]), seed=seed)[int(match[1])]


def require_apart(training: Cohort, held_out: Cohort, where: str, sides: tuple[str, str]) -> None:
    """No case and no patient on both sides.

    Args:
        where: the file, and what the sides are called in it.

    Raises:
        InputError: one that is.
    """
    first, second = sides
    trained = {case.name for case in training}
    both = [case.name for case in held_out if case.name in trained]
    if both:
        raise InputError(
            f"{where}: {listed(both)} stand in {first!r} and in {second!r}, so a model would be "
            "tested on what it has seen. Remove them from one side."
        )
    patients = {case.participant: case.name for case in training}
    for case in held_out:
        if case.participant in patients:
            raise InputError(
                f"{where}: patient {case.participant} stands on both sides, with "
                f"{patients[case.participant]} in {first!r} and {case.name} in {second!r}. "
                "Move all scans of a patient to one side."
            )


def listed(names: Sequence[str]) -> str:
    """The first few, for a sentence."""
    return ", ".join(repr(name) for name in names[:LISTED]) + (
        f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    )
