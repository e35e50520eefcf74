"""What a study asks of a cohort before anything is trained, so that no refusal comes hours late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from neonet3d.classification.clinical import fit_columns
from neonet3d.classification.radiomics.patient import feature_names
from neonet3d.cohort.case import Case
from neonet3d.cohort.check import find_twins
from neonet3d.cohort.class_names import mend_of, misnamed_classes
from neonet3d.cohort.cohort import Cohort
from neonet3d.config import Config
from neonet3d.errors import InputError
from neonet3d.study.arms import study_arms


def require_one_scan_each(cases: Iterable[Case], root: Path) -> None:
    """Intervals and tests count scans, so two of one patient would promise too much."""
    scans = Counter(case.participant for case in cases)
    several = sum(n > 1 for n in scans.values())
    if several:
        raise InputError(
            f"{several} patients of {root} have several scans, and the study's intervals "
            "count every scan as a patient. Keep one row of participants.tsv for each patient."
        )


def require_own_scans(cohort: Cohort) -> None:
    """One scan under two patients may train a model and be held out from it at once.

    Raises:
        InputError: two patients with the same scan, whatever mask and outcome they have.
    """
    twins = [
        (first, case)
        for case, first in find_twins((case, case.scan_digest()) for case in cohort)
        if case.participant != first.participant
    ]
    if twins:
        first, case = twins[0]
        raise InputError(
            f"{first.name} and {case.name} of {cohort.root} are one scan under two patients, so a "
            "model would be tested on what it has seen. Keep one of the two, or export the right "
            "scan."
        )


def require_known_names(cohort: Cohort) -> None:
    """Where the tumour has another name, every patch would show the middle of the liver."""
    misnamed = misnamed_classes(cohort.schema)
    if misnamed:
        raise InputError(
            f"The masks of {cohort.root} have {' and '.join(map(repr, misnamed))}, which no part "
            f"of the study looks for. {mend_of(misnamed)}"
        )


def require_models(cohort: Cohort, config: Config) -> None:
    """What the table's and the radiomics' models ask of a cohort. Nothing found here is kept.

    Raises:
        InputError: as their trainings would, of all patients together.
    """
    models = {arm.settings.model for arm in study_arms(config)}
    if "clinical" in models:
        fit_columns(cohort, config.clinical.columns)
    if "radiomics" in models:
        feature_names(cohort.schema, config.radiomics)
