"""Which cases the report shows, read from the run folder and known by number from there on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from neonet3d.cohort.cohort import Case, Cohort
from neonet3d.cohort.volume import read_label_map, require_same_grid
from neonet3d.errors import InputError
from neonet3d.report.pictures import Labelled, Pair, Scan, spread_over_outcomes
from neonet3d.study.results import StudyResults

N_PAIRS = 8
N_SCANS = 4


def read_pairs(run: Path, crops: Cohort, results: StudyResults) -> list[Pair]:
    """Held-out patches and the synthetic ones on their masks, spread over the cohort's order.

    Raises:
        InputError: a patch of a held-out case is missing in the run folder.
    """
    pairs = []
    for held_out in _choose(crops, results, N_PAIRS):
        folder = run / f"fold-{held_out.fold}" / "pairs"
        synthetic = _find(Cohort.open(folder), held_out.case.name)
        pairs.append(
            Pair(
                held_out.number,
                held_out.outcome,
                Labelled(*held_out.case.read_with_mask()),
                Labelled(*synthetic.read_with_mask()),
            )
        )
    return pairs


def read_scans(run: Path, cohort: Cohort, results: StudyResults) -> list[Scan]:
    """Held-out scans with reference and NeoSeg masks, spread over the cohort's order.

    Raises:
        InputError: a mask is missing, or lies on another grid than its scan.
    """
    scans = []
    for held_out in _choose(cohort, results, N_SCANS):
        case = held_out.case
        path = run / f"fold-{held_out.fold}" / "masks" / f"{case.name}.nii.gz"
        if not path.is_file():
            raise InputError(f"{case.name}: NeoSeg's mask {path} is missing. Run the study again.")
        image, reference = case.read_with_mask()
        predicted = read_label_map(path, n_classes=len(cohort.schema), name=case.name)
        require_same_grid(image, predicted, name=case.name)
        scans.append(Scan(held_out.number, held_out.outcome, Labelled(image, reference), predicted))
    return scans


@dataclass(frozen=True)
class _HeldOut:
    """A case of the results: its number is its place in the cohort's table, from 1."""

    case: Case
    number: int
    fold: int
    outcome: int


def _choose(cohort: Cohort, results: StudyResults, n: int) -> list[_HeldOut]:
    known = dict(zip(results.cases, zip(results.folds, results.outcomes, strict=True), strict=True))
    for name in results.cases:
        _find(cohort, name)
    held_out = [
        _HeldOut(case, number, *known[case.name])
        for number, case in enumerate(cohort, start=1)
        if case.name in known
    ]
    chosen = spread_over_outcomes([one.outcome for one in held_out], n)
    return [held_out[i] for i in chosen]


def _find(cohort: Cohort, name: str) -> Case:
    try:
        return cohort[name]
    except KeyError as error:
        raise InputError(
            f"{name} is in results.json but not in {cohort.root}. Run the study again."
        ) from error
