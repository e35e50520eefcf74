"""What is wrong with a cohort's table and folders as a whole, without reading a scan."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from neonet3d.cohort.case import Case
from neonet3d.cohort.class_names import mend_of, misnamed_classes
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.findings import Finding
from neonet3d.cohort.folds import SPLITS
from neonet3d.cohort.layout import (
    BYTE_ORDER_MARK,
    OUTCOMES,
    participants_as_written,
    survey_participants,
)

IDENTIFYING_COLUMN = re.compile(
    r"(^|_)(sur|first|last|patient_?|given_?)?name$|birth|(^|_)dob$|(^|_)mrn$|address|phone|"
    r"e_?mail|insurance|accession",
    re.IGNORECASE,
)
DATE = re.compile(r"(?<!\d)(19|20)\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d)")
LISTED = 3  # cases that a finding names


def check_table(cohort: Cohort, n_folds: int) -> Iterator[Finding]:
    """Findings of the cohort: classes, splits, patients, outcomes, text, files without a row."""
    yield from _check_classes(cohort)
    yield from _check_splits(cohort)
    yield from _check_patients(cohort)
    yield from _check_outcomes(cohort, n_folds)
    yield from _check_text(cohort)
    yield from _check_orphans(cohort)


def _check_classes(cohort: Cohort) -> Iterator[Finding]:
    misnamed = misnamed_classes(cohort.schema)
    if misnamed:
        named = " and ".join(repr(name) for name in misnamed)
        yield Finding(
            None,
            "warning",
            f"the masks have {named}, but not {' and '.join(map(repr, misnamed.values()))}: "
            "a class by another name is an organ like any other",
            mend_of(misnamed),
        )


def _by_patient(cohort: Cohort) -> dict[str, list[Case]]:
    patients: dict[str, list[Case]] = defaultdict(list)
    for case in cohort:
        patients[case.participant].append(case)
    return patients


def _sides(cases: list[Case]) -> dict[str, str]:
    """Each side of the official split with a case of a patient that stands there."""
    return {case.split: case.name for case in reversed(cases) if case.split is not None}


def _check_splits(cohort: Cohort) -> Iterator[Finding]:
    strange = [case for case in cohort if case.split not in (None, *SPLITS)]
    if strange:
        yield Finding(
            None,
            "error",
            f"the split of {strange[0].name} is {strange[0].split!r}"
            + (f", and that of {len(strange) - 1} more is none either" if strange[1:] else ""),
            f"Write one of {', '.join(SPLITS)} in participants.tsv, or nothing.",
        )
    for participant, cases in _by_patient(cohort).items():
        sides = sorted(_sides(cases).items(), key=lambda side: side[1])
        if len(sides) > 1:
            placed = " and ".join(f"{name} in {split!r}" for split, name in sides)
            yield Finding(
                None,
                "error",
                f"patient {participant} stands on both sides of the official split: {placed}",
                "Move all scans of a patient to one side in participants.tsv.",
            )


def _check_patients(cohort: Cohort) -> Iterator[Finding]:
    patients = _by_patient(cohort)
    for participant, cases in patients.items():
        outcomes = {case.outcome for case in cases if case.outcome is not None}
        named = ", ".join(case.name for case in cases[:LISTED])
        if len(outcomes) > 1:
            yield Finding(
                None,
                "warning",
                f"patient {participant} has {cohort.outcome_name!r} both 0 and 1: {named}",
                "Correct participants.tsv, unless the outcome may change between scans.",
            )
        elif len(cases) > 1 and len(_sides(cases)) < 2:
            yield Finding(
                None,
                "note",
                f"patient {participant} has {len(cases)} scans: {named}"
                + (", ..." if len(cases) > LISTED else ""),
                "Nothing; folds keep a patient's scans on one side.",
            )
    alike: dict[str, list[str]] = defaultdict(list)
    for participant in patients:
        alike[participant.lower().lstrip("0")].append(participant)
    for same in alike.values():
        if len(same) > 1:
            yield Finding(
                None,
                "warning",
                f"the patients {' and '.join(same)} may be one, written in two ways",
                "Excel drops leading zeros. If they are one, give all rows the same "
                "participant_id; else folds may part them.",
            )


def _check_outcomes(cohort: Cohort, n_folds: int) -> Iterator[Finding]:
    if cohort.outcome_name is None:
        return
    patients: dict[int, set[str]] = defaultdict(set)
    for case in cohort:
        if case.outcome is not None:
            patients[case.outcome].add(case.participant)
    if len(patients) < 2:
        found = (
            f"is {next(iter(patients))} for every case" if patients else "is missing for every case"
        )
        yield Finding(
            None,
            "error",
            f"{cohort.outcome_name!r} {found}",
            "A classifier needs both classes; add cases or correct participants.tsv.",
        )
        return
    divided = any(case.split == "test" for case in cohort)
    for outcome, names in sorted(patients.items()):
        if len(names) < n_folds and not divided:
            yield Finding(
                None,
                "error",
                f"{len(names)} patients have {cohort.outcome_name!r} = {outcome}, fewer than "
                f"{n_folds} folds",
                "Use fewer folds ('--set study.folds=N'; ask this check with '--folds N') or "
                "add patients.",
            )


def _check_text(cohort: Cohort) -> Iterator[Finding]:
    raw = (cohort.root / "participants.tsv").read_bytes()
    if raw.startswith(BYTE_ORDER_MARK):
        yield Finding(
            None,
            "warning",
            "participants.tsv begins with a byte-order mark, as Excel writes it",
            "It is skipped here, but other tools read it as part of the first column's name; "
            "'--fix OUT' removes it.",
        )
    table, _ = survey_participants(cohort.root, cohort.outcome_name)
    if cohort.outcome_name is not None:
        column = table[cohort.outcome_name]
        written = Counter(v for v in column if v in OUTCOMES and v != str(OUTCOMES[v]))
        if written:
            first = table["case"][column.isin(list(written))].iloc[0]
            values = " and ".join(repr(value) for value in sorted(written))
            yield Finding(
                None,
                "warning",
                f"{cohort.outcome_name!r} is written as {values} in {written.total()} rows (the "
                f"first is {first})",
                "It is read as 0 and 1; '--fix OUT' writes it so.",
            )
    columns = [str(name) for name in table.columns if IDENTIFYING_COLUMN.search(str(name))]
    if columns:
        yield Finding(
            None,
            "warning",
            f"participants.tsv has columns that may identify a patient: {', '.join(columns)}",
            "Remove them before the data leave the house.",
        )
    for case in cohort:
        if DATE.search(case.name) or DATE.search(case.participant):
            yield Finding(
                case.name,
                "warning",
                "its name or its patient's id holds what looks like a date",
                "Names are written into models and reports; rename it if it is a date of birth or "
                "of a scan.",
            )


def _check_orphans(cohort: Cohort) -> Iterator[Finding]:
    # A subset knows the whole table, and a row that cannot be used still names its files.
    header, *rows = participants_as_written(cohort.root)
    column = header.index("case")
    listed = {fields[column] for fields in rows if len(fields) > column}
    for folder, suffix in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        for path in sorted((cohort.root / folder).glob("*")):
            if path.name.removesuffix(suffix) not in listed or not path.name.endswith(suffix):
                yield Finding(
                    None,
                    "warning",
                    f"{folder}/{path.name} belongs to no case of participants.tsv",
                    "Add a row for it or remove the file.",
                )
