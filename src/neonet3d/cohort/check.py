"""What is wrong with a cohort, case by case, with the mend. Nothing stops at the first fault."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from scipy import ndimage

from neonet3d.cohort.cohort import Case, Cohort
from neonet3d.cohort.layout import read_participants
from neonet3d.cohort.volume import Volume, require_same_grid
from neonet3d.errors import InputError
from neonet3d.types import Advance, no_advance

TEXT_FIELDS = ("descrip", "aux_file", "intent_name", "db_name")


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        case: name of the case; None where it is the cohort's.
        severity: an ``error`` makes a result wrong or stops a run; a ``warning`` may be meant.
        problem: what was found.
        mend: what to do.
    """

    case: str | None
    severity: Literal["error", "warning"]
    problem: str
    mend: str


def check_cohort(cohort: Cohort, advance: Advance = no_advance) -> list[Finding]:
    """Read every case and compare them; errors first, then warnings, each in the cohort's order.

    Args:
        advance: called once per case.
    """
    findings: list[Finding] = []
    first_with: dict[str, Case] = {}
    for case in cohort:
        findings += _check_case(cohort, case, first_with)
        advance(note=case.name)
    findings += _check_splits(cohort)
    findings += _check_outcomes(cohort)
    findings += _check_orphans(cohort)
    return sorted(findings, key=lambda finding: finding.severity)


def _check_case(cohort: Cohort, case: Case, first_with: dict[str, Case]) -> Iterator[Finding]:
    image = mask = None
    try:
        image = case.read_image()
    except InputError as error:
        yield _from_error(case, error)
    try:
        mask = case.read_mask()
    except InputError as error:
        yield _from_error(case, error)
    if image is not None:
        yield from _check_text(case, case.image_path)
        digest = hashlib.sha256(f"{image.shape}".encode() + image.data.tobytes()).hexdigest()
        twin = first_with.setdefault(digest, case)
        if twin is not case:
            same = "the same patient" if twin.participant == case.participant else "another patient"
            yield Finding(
                case.name,
                "error",
                f"the image has the same voxels as {twin.name}, of {same}",
                "Keep one of the two, or export the right scan.",
            )
    if case.mask_path is None and len(case.schema) > 1:
        yield Finding(
            case.name, "warning", "there is no mask", "Draw one or run 'neonet3d segment predict'."
        )
    if mask is not None and case.mask_path is not None:
        yield from _check_text(case, case.mask_path)
        yield from _check_mask(case, mask)
    if image is not None and mask is not None:
        try:
            require_same_grid(image, mask, name=case.name)
        except InputError as error:
            yield _from_error(case, error)
    if cohort.outcome_name is not None and case.outcome is None:
        yield Finding(
            case.name,
            "warning",
            f"there is no {cohort.outcome_name!r}",
            "Fill the column in participants.tsv; without it the case can only be predicted.",
        )


def _from_error(case: Case, error: InputError) -> Finding:
    """Our sentences begin with the case's name and end with the mend."""
    problem, _, mend = str(error).removeprefix(f"{case.name}: ").rpartition(". ")
    return Finding(case.name, "error", problem, mend)


def _check_mask(case: Case, mask: Volume) -> Iterator[Finding]:
    if len(case.schema) > 1 and not mask.data.any():
        yield Finding(
            case.name, "warning", "the mask is empty", "Draw it, or remove the file from labelsTr."
        )
        return
    if "tumour" not in case.schema:
        return
    tumour = mask.data == case.schema.value("tumour")
    if not tumour.any():
        yield Finding(
            case.name,
            "warning",
            "there is no tumour in the mask, so a crop falls back to the liver",
            "Draw the tumour, or leave the case out of classification.",
        )
        return
    if "liver" not in case.schema:
        return
    around = ndimage.binary_dilation(tumour, ndimage.generate_binary_structure(3, 3))
    if not (mask.data[around] == case.schema.value("liver")).any():
        yield Finding(
            case.name,
            "warning",
            "no tumour voxel touches the liver",
            "Look at the mask; are the classes in dataset.json in the right order?",
        )


def _check_text(case: Case, path: Path) -> Iterator[Finding]:
    """Free text of a header is named but not quoted: a report must not spread it."""
    image = nib.load(path)
    named = [field for field in TEXT_FIELDS if bytes(image.header[field]).strip(b"\0 ")]
    if len(image.header.extensions):
        named.append("an extension")
    if named:
        yield Finding(
            case.name,
            "warning",
            f"the header of {path.name} holds text that may identify a patient: "
            + ", ".join(named),
            "Read and empty it before the data leave the house; what neonet3d writes has none.",
        )


def _check_splits(cohort: Cohort) -> Iterator[Finding]:
    splits: dict[str, dict[str, str]] = {}
    for case in cohort:
        if case.split is not None:
            splits.setdefault(case.participant, {}).setdefault(case.split, case.name)
    for participant, cases in splits.items():
        if len(cases) > 1:
            placed = " and ".join(f"{name} in {split!r}" for split, name in cases.items())
            yield Finding(
                None,
                "error",
                f"patient {participant} stands on both sides of the official split: {placed}",
                "Move all scans of a patient to one side in participants.tsv.",
            )


def _check_outcomes(cohort: Cohort) -> Iterator[Finding]:
    if cohort.outcome_name is None:
        return
    values = np.unique([case.outcome for case in cohort if case.outcome is not None])
    if len(values) < 2:
        found = f"is {values[0]} for every case" if len(values) else "is missing for every case"
        yield Finding(
            None,
            "error",
            f"{cohort.outcome_name!r} {found}",
            "A classifier needs both classes; add cases or correct participants.tsv.",
        )


def _check_orphans(cohort: Cohort) -> Iterator[Finding]:
    listed = set(read_participants(cohort.root, cohort.outcome_name)["case"])
    for folder, suffix in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        for path in sorted((cohort.root / folder).glob("*")):
            if path.name.removesuffix(suffix) not in listed or not path.name.endswith(suffix):
                yield Finding(
                    None,
                    "warning",
                    f"{folder}/{path.name} belongs to no case of participants.tsv",
                    "Add a row for it or remove the file.",
                )
