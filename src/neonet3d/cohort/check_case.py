"""One case of a cohort, read and looked at; nothing here knows of the other cases."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from neonet3d.cohort.case import Case
from neonet3d.cohort.check_masks import check_mask
from neonet3d.cohort.findings import Finding, finding_of
from neonet3d.cohort.nifti import QFORM_TOLERANCE_MM, NiftiFile, note_header, read_nifti
from neonet3d.cohort.volume import Volume, image_volume, label_volume, require_same_grid
from neonet3d.errors import InputError


@dataclass(frozen=True)
class CaseReport:
    """What one case came to.

    Attributes:
        findings: in the order image, mask, both.
        pixels: digest of the image's voxels in RAS+; None where it cannot be read.
    """

    case: Case
    findings: tuple[Finding, ...]
    pixels: str | None


def check_case(case: Case, outcome_name: str | None) -> CaseReport:
    """Read image and mask to the end of their streams and compare them."""
    findings: list[Finding] = []
    image = _read_image(case, findings)
    mask = _read_mask(case, findings)
    if image is not None and mask is not None:
        try:
            require_same_grid(image, mask, name=case.name)
        except InputError as error:
            findings.append(finding_of(case.name, error))
    if mask is not None:
        findings += check_mask(case, mask)
    if case.mask_path is None and len(case.schema) > 1:
        findings.append(
            Finding(
                case.name,
                "warning",
                "there is no mask",
                "Draw one or run 'neonet3d segment predict'.",
            )
        )
    if outcome_name is not None and case.outcome is None:
        findings.append(
            Finding(
                case.name,
                "warning",
                f"there is no {outcome_name!r}",
                "Fill the column in participants.tsv; without it the case can only be predicted.",
            )
        )
    return CaseReport(case, tuple(findings), None if image is None else _digest(image))


def _read_image(case: Case, findings: list[Finding]) -> Volume | None:
    try:
        file = read_nifti(case.image_path, case.name)
        findings += _check_header(case, case.image_path, file)
        return image_volume(file, case.image_path, case.name)
    except InputError as error:
        findings.append(finding_of(case.name, error))
        return None


def _read_mask(case: Case, findings: list[Finding]) -> Volume | None:
    if case.mask_path is None:
        return None
    try:
        file = read_nifti(case.mask_path, case.name)
        findings += _check_header(case, case.mask_path, file)
        volume = label_volume(file, case.mask_path, case.name, n_classes=len(case.schema))
    except InputError as error:
        findings.append(finding_of(case.name, error))
        return None
    stored = file.image.get_data_dtype()
    if stored.kind == "f":
        findings.append(
            Finding(
                case.name,
                "warning",
                f"the labels of {case.mask_path.name} are whole numbers stored as {stored}",
                "They are read as whole numbers; '--fix OUT' writes them so.",
            )
        )
    return volume


def _check_header(case: Case, path: Path, file: NiftiFile) -> Iterator[Finding]:
    notes = note_header(file)
    if notes.placeless:
        yield Finding(
            case.name,
            "warning",
            f"{path.name} says nowhere where it lies (no qform and no sform), so left and "
            "right are assumed",
            "Look whether the liver lies on the patient's right, or convert it again from DICOM.",
        )
    if notes.places_apart_mm is not None and notes.places_apart_mm > QFORM_TOLERANCE_MM:
        yield Finding(
            case.name,
            "warning",
            f"qform and sform of {path.name} disagree by {notes.places_apart_mm:.3g} mm, so the "
            "scan has two places",
            "The sform is read; if it is right, '--fix OUT' makes the qform equal to it.",
        )
    if notes.misleading_spacing_mm is not None:
        says = " x ".join(f"{s:g}" for s in notes.misleading_spacing_mm)
        yield Finding(
            case.name,
            "warning",
            f"the header of {path.name} gives a voxel size of {says} mm, and its sform another",
            "The sform is read; other tools may not. '--fix OUT' makes the header agree with it.",
        )
    if notes.singleton_axes:
        yield Finding(
            case.name,
            "warning",
            f"{path.name} has the shape {tuple(file.image.shape)}, with an axis of length 1",
            "It is read without that axis; '--fix OUT' writes it so.",
        )
    if notes.text:
        # Free text is named but not quoted: a report must not spread it.
        yield Finding(
            case.name,
            "warning",
            f"the header of {path.name} holds text that may identify a patient: "
            + ", ".join(notes.text),
            "Read it before the data leave the house; '--fix OUT' empties it.",
        )


def _digest(image: Volume) -> str:
    digest = hashlib.sha256(f"{image.shape}".encode())
    digest.update(image.data.tobytes())
    return digest.hexdigest()
