"""Import from a tree of DICOM files: any names, several series and patients.

One scan for each patient becomes a case. Cases are numbered in the order of the SHA-256 of their
patients' ids, which is the same at every import and says nothing of names, dates or order of
arrival. No identifier, date or UID of a header is written, unless PatientIDs are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from nibabel import aff2axcodes
from pydicom.uid import UID

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.dicom_headers import Series, list_files, read_series
from neonet3d.cohort.importers.dicom_masks import MaskFile, describe_masks, find_masks, read_mask
from neonet3d.cohort.importers.dicom_pixels import read_stack
from neonet3d.cohort.importers.dicom_stack import Stack, stack_series
from neonet3d.cohort.importers.source import Scan, Source, write_source
from neonet3d.cohort.layout import SAFE_ID
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.types import Advance, LabelSchema, no_advance

SHOWN = 12  # series that an error lists


@dataclass(frozen=True)
class ListedSeries:
    """A series, whose it is, and its block or why it has none.

    Attributes:
        case: the patient's case, ``case_0001``; empty for a patient without any image.
        study: number of the study among the patient's, from 1.
    """

    case: str
    study: int
    series: Series
    stack: Stack | None
    fault: str | None

    @property
    def title(self) -> str:
        """Number and description, for error messages."""
        return f"{self.series.number or '(no number)'} {self.series.description!r}"

    def row(self, *, keep_ids: bool) -> dict[str, object]:
        """What the table of series shows of it; no identifier unless asked for."""
        frames, stack = self.series.frames, self.stack
        syntaxes = sorted({UID(frame.transfer_syntax).name for frame in frames})
        rows, columns = frames[0].size
        return {
            "patient": self.series.patient if keep_ids else self.case,
            "study": self.study,
            "number": self.series.number,
            "description": self.series.description,
            "modality": self.series.modality,
            "images": len(frames),
            "size": f"{columns}x{rows}",
            "spacing_mm": None if stack is None else [round(s, 4) for s in stack.spacing_mm],
            "orientation": None if stack is None else _orientation(stack),
            "transfer_syntax": ", ".join(syntaxes),
            "usable": self.fault is None,
            "why_not": self.fault,
        }


def list_series(folder: Path, *, advance: Advance = no_advance) -> tuple[list[ListedSeries], int]:
    """Every series of a tree by patient, and how many files are no DICOM; pixels are not read.

    Args:
        advance: called once per file; there are ``len(list_files(folder))``.

    Raises:
        InputError: a header that cannot be read, or no DICOM file at all.
    """
    found, others = read_series(folder, list_files(folder), advance=advance)
    if not found:
        raise InputError(f"{folder} holds no DICOM file ({others} others). Check the path.")
    patients = {series.patient for series in found if series.has_images}
    ranked = sorted(patients, key=lambda p: hashlib.sha256(p.encode()).hexdigest())
    names = {patient: f"case_{i:04d}" for i, patient in enumerate(ranked, start=1)}
    studies: dict[str, list[str]] = {}
    listed = []
    for series in found:
        known = studies.setdefault(series.patient, [])
        if series.study not in known:
            known.append(series.study)
        stack, fault = _try_to_stack(series)
        case, study = names.get(series.patient, ""), known.index(series.study) + 1
        listed.append(ListedSeries(case, study, series, stack, fault))
    return sorted(listed, key=lambda entry: entry.case or "~"), others


def _try_to_stack(series: Series) -> tuple[Stack | None, str | None]:
    try:
        return stack_series(series), None
    except InputError as error:
        return None, str(error)


def choose_series(listed: Iterable[ListedSeries], text: str | None) -> list[ListedSeries]:
    """One usable series for each patient.

    Args:
        text: a SeriesInstanceUID (it holds dots and digits), a SeriesNumber (digits), or a part of
            SeriesDescription in any case; None where each patient has one usable series.

    Raises:
        InputError: a patient with no series that is usable and matches, or with several; scans of
            several modalities.
    """
    candidates: dict[str, list[ListedSeries]] = {}
    for entry in listed:
        if entry.case and entry.series.has_images:
            found = candidates.setdefault(entry.case, [])
            if text is None or _matches(entry.series, text):
                found.append(entry)
    asked = "" if text is None else f" matches --series {text!r} and"
    without = {
        case: entries
        for case, entries in candidates.items()
        if all(entry.fault is not None for entry in entries)
    }
    if without:
        raise InputError(
            f"{len(without)} of {len(candidates)} patients have no series that{asked} is usable:\n"
            + _shown(without)
            + "\nChoose other series, mend these or remove the patients; --list-series shows all "
            "(with --keep-ids, by PatientID)."
        )
    usable = {
        case: [entry for entry in entries if entry.fault is None]
        for case, entries in candidates.items()
    }
    several = {case: entries for case, entries in usable.items() if len(entries) > 1}
    if several:
        raise InputError(
            f"{len(several)} of {len(candidates)} patients have several series that{asked} are "
            "usable:\n" + _shown(several) + "\nA case is one scan; choose with --series TEXT "
            "(part of the description, the number, or the UID). --list-series shows all."
        )
    chosen = [entries[0] for entries in usable.values()]
    modalities = sorted({entry.series.modality for entry in chosen})
    if len(modalities) > 1:
        raise InputError(
            f"The series are of several modalities, {' and '.join(modalities)}, whose grey values "
            "do not compare. Choose one with --series, or import them apart."
        )
    return chosen


def import_dicom(
    source: Path,
    out: Path,
    *,
    series: str | None = None,
    masks: Path | None = None,
    class_map: ClassMap | None = None,
    keep_ids: bool = False,
    labels: pd.DataFrame | None = None,
    outcome_name: str | None = None,
    advance: Advance = no_advance,
) -> Cohort:
    """Write one scan of each patient, with its mask, as a cohort; see ``list_dicom``.

    Args, beside those of ``list_dicom`` and ``write_source``:
        labels: its column ``case`` holds PatientIDs.

    Raises:
        InputError: as ``list_series``, ``choose_series``, ``list_dicom`` and ``write_source``.
    """
    listed = list_dicom(source, series=series, masks=masks, class_map=class_map, keep_ids=keep_ids)
    return write_source(listed, out, labels=labels, outcome_name=outcome_name, advance=advance)


def list_dicom(
    source: Path,
    *,
    series: str | None = None,
    masks: Path | None = None,
    class_map: ClassMap | None = None,
    keep_ids: bool = False,
    advance: Advance = no_advance,
) -> Source:
    """The scans of a tree; pixels are not read.

    Args:
        series: see ``choose_series``.
        masks: DICOM SEG or NIfTI, a file or a folder; see ``find_masks``.
        class_map: which segments or values of the masks are which classes.
        keep_ids: PatientIDs become participant ids.
        advance: called once per file.

    Raises:
        InputError: also a tree without images, masks whose classes are not named (with what they
            hold), and PatientIDs that cannot be ids.
    """
    if masks is None and class_map is not None:
        raise InputError("--label-map names classes of masks, and there are none. Add '--masks'.")
    listed, others = list_series(source, advance=advance)
    if not any(entry.case for entry in listed):
        raise InputError(
            f"{source} holds no series of images, only masks, plans or reports. Give the folder of "
            "the scans; perhaps the source and '--masks' were exchanged."
        )
    chosen = choose_series(listed, series)
    if keep_ids:
        _require_safe(chosen)
    found: dict[str, MaskFile] = {}
    if masks is not None:
        found = find_masks(masks, {entry.case: entry.series for entry in chosen})
        if class_map is None:
            raise InputError(describe_masks(found.values()))
    schema = LabelSchema(("background",)) if class_map is None else class_map.schema
    scans = tuple(
        Scan(
            entry.case,
            partial(_read, entry, found.get(entry.case), class_map),
            key=entry.series.patient,
            participant=entry.series.patient_id if keep_ids else None,
        )
        for entry in chosen
    )
    return Source(
        scans,
        schema,
        chosen[0].series.modality or "unknown",
        {"layout": "DICOM", "files_not_dicom": others},
        class_map,
        pseudonymous=not keep_ids,
    )


def _read(
    entry: ListedSeries, mask: MaskFile | None, class_map: ClassMap | None
) -> tuple[Volume, Volume | None]:
    assert entry.stack is not None  # chosen, and so usable
    image = read_stack(entry.stack, name=entry.case)
    if mask is None or class_map is None:
        return image, None
    return image, read_mask(mask, image, class_map, name=entry.case)


def _matches(series: Series, text: str) -> bool:
    if text.isdecimal():
        return series.number == text
    if set(text) <= set("0123456789."):
        return series.uid == text
    return text.casefold() in series.description.casefold()


def _shown(entries: dict[str, list[ListedSeries]]) -> str:
    lines = []
    for case, found in entries.items():
        lines += [
            f"  {case}: {e.title}, {e.fault or f'{len(e.series.frames)} images'}" for e in found
        ]
        if not found:
            lines.append(f"  {case}: none matches")
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(lines[:SHOWN] + more)


def _require_safe(chosen: Iterable[ListedSeries]) -> None:
    for entry in chosen:
        if not SAFE_ID.fullmatch(entry.series.patient_id):
            raise InputError(
                f"{entry.case}: the PatientID {entry.series.patient_id!r} may hold only letters, "
                "digits, '.', '_' and '-' with --keep-ids. Rename it, or import without."
            )


def _orientation(stack: Stack) -> str:
    """Plane of the slices and the axes' codes, such as ``axial LPS``."""
    normal = np.abs(stack.affine[:3, 2] / np.linalg.norm(stack.affine[:3, 2]))
    plane = ("sagittal", "coronal", "axial")[int(normal.argmax())]
    oblique = "oblique " if normal.max() < np.cos(np.radians(1)) else ""
    return f"{oblique}{plane} {''.join(aff2axcodes(stack.affine))}"
