"""What is wrong with a cohort, case by case, with the mend. Nothing stops at the first fault."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from neonet3d.cohort.case import Case
from neonet3d.cohort.check_case import CaseReport, check_case
from neonet3d.cohort.check_table import check_table
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.findings import Finding, by_severity, finding_of
from neonet3d.types import Advance, no_advance

MOST_WORKERS = 8  # each holds one scan and its mask
DEFAULT_FOLDS = 5  # of the presets


def check_folder(
    root: Path | str, advance: Advance = no_advance, *, n_folds: int = DEFAULT_FOLDS
) -> list[Finding]:
    """Check a folder of which some rows may be unusable; the other cases are read none the less.

    Raises:
        InputError: there is no cohort in the folder, or a table of which no row can be read.
    """
    cohort, faults = Cohort.survey(root)
    unusable = [finding_of(fault.case, fault.sentence) for fault in faults]
    return by_severity([*unusable, *check_cohort(cohort, advance, n_folds=n_folds)])


def check_cohort(
    cohort: Cohort, advance: Advance = no_advance, *, n_folds: int = DEFAULT_FOLDS
) -> list[Finding]:
    """Read every case and compare them; errors, warnings, notes, each in the cohort's order.

    Cases are read by threads: decompression, hashing and NumPy let go of the interpreter, and
    processes would have to start it first (docs/cohort.md has the measurement).

    Args:
        advance: called once per case, in the cohort's order.
        n_folds: folds that a study of this cohort is to have.
    """
    reports: list[CaseReport] = []
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        look = partial(check_case, outcome_name=cohort.outcome_name)
        try:
            for report in pool.map(look, cohort):
                reports.append(report)
                advance(note=report.case.name)
        except BaseException:  # Ctrl-C must not wait for the cases that have not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    read = ((report.case, report.pixels) for report in reports if report.pixels is not None)
    twins = {case.name: [_twin(case, first)] for case, first in find_twins(read)}
    findings = [
        finding
        for report in reports
        for finding in (*report.findings, *twins.get(report.case.name, ()))
    ]
    return by_severity([*findings, *check_table(cohort, n_folds)])


def find_twins(digests: Iterable[tuple[Case, str]]) -> list[tuple[Case, Case]]:
    """Each case whose digest was there before, and the first that had it."""
    with_digest: dict[str, list[Case]] = defaultdict(list)
    for case, digest in digests:
        with_digest[digest].append(case)
    return [(case, first) for first, *others in with_digest.values() for case in others]


def _twin(case: Case, first: Case) -> Finding:
    same = "the same patient" if first.participant == case.participant else "another patient"
    return Finding(
        case.name,
        "error",
        f"the image has the same voxels as {first.name}, of {same}",
        "Keep one of the two, or export the right scan.",
    )
