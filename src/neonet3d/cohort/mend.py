"""A repaired copy of a cohort: what has one right answer is mended, the rest is left as it is.

The source is never written to. What is mended keeps its voxels: bytes of the file are taken over
as they are stored, and only the header, or the type of a mask's labels, changes.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import nibabel as nib
import numpy as np

from neonet3d.cohort.case import Case
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.layout import BYTE_ORDER_MARK, OUTCOMES, participants_as_written
from neonet3d.cohort.nifti import (
    QFORM_TOLERANCE_MM,
    HeaderNotes,
    NiftiFile,
    farthest_corner_mm,
    note_header,
    read_nifti,
)
from neonet3d.cohort.stream import deflate
from neonet3d.cohort.volume import GRID_TOLERANCE_MM, label_volume, write_atomically
from neonet3d.errors import InputError
from neonet3d.types import Advance, no_advance


@dataclass(frozen=True)
class Mended:
    """What was put right.

    Attributes:
        case: name of the case; None where it is the table's.
        file: relative to the cohort.
        what: in words.
    """

    case: str | None
    file: str
    what: str


def mend_cohort(root: Path | str, out: Path, advance: Advance = no_advance) -> list[Mended]:
    """Copy a cohort and mend what has one right answer.

    That is: labels that are whole numbers but stored as floats, a fourth axis of length one, a
    qform or voxel size that disagrees with the sform, text in headers, a byte-order mark, outcomes
    written ``1.0``. Files that cannot be read are copied as they are; check the copy.

    Args:
        out: must not exist or be empty, and must not lie in the cohort. Nothing is left there when
            this fails.
        advance: called once per case.

    Raises:
        InputError: a table with rows that cannot be used, or an ``out`` that cannot be.
    """
    root = Path(root)
    cohort = Cohort.open(root)
    if out.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{out} lies in the cohort {root} itself. Choose a folder elsewhere.")
    done: list[Mended] = []
    with new_folder(out) as folder:
        rewritten = {root / "participants.tsv"}
        done += _mend_table(cohort, folder)
        for case in cohort:
            for path in (case.image_path, case.mask_path):
                if path is None:
                    continue
                what = _mend_file(case, path, folder / path.relative_to(root))
                done += [Mended(case.name, str(path.relative_to(root)), entry) for entry in what]
                rewritten.add(path)
            advance(note=case.name)
        for path in _others(root, rewritten):
            target = folder / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return done


def _others(root: Path, rewritten: set[Path]) -> Iterator[Path]:
    """Files that are copied as they are; a link may point to nothing that is ours."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and path not in rewritten:
            if not path.resolve().is_relative_to(root.resolve()):
                raise InputError(
                    f"{path} is a link that leads out of the cohort. Remove it, or put the file "
                    "itself into the folder."
                )
            yield path


def _mend_table(cohort: Cohort, folder: Path) -> Iterator[Mended]:
    """Only the fields that are mended change, and empty lines go; all else stays as it was."""
    if (cohort.root / "participants.tsv").read_bytes().startswith(BYTE_ORDER_MARK):
        yield Mended(None, "participants.tsv", "byte-order mark removed")
    header, *rows = participants_as_written(cohort.root)
    if cohort.outcome_name is not None:
        column, case = header.index(cohort.outcome_name), header.index("case")
        for fields in rows:
            value = fields[column] if len(fields) > column else ""
            if value in OUTCOMES and value != str(OUTCOMES[value]):
                fields[column] = str(OUTCOMES[value])
                what = f"{cohort.outcome_name} {value} -> {fields[column]}"
                yield Mended(fields[case], "participants.tsv", what)
    text = StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([header, *rows])
    write_atomically(folder / "participants.tsv", text.getvalue().encode())


def _mend_file(case: Case, path: Path, target: Path) -> list[str]:
    """Write the file, mended or as it is; what was mended comes back."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = read_nifti(path, case.name)
        notes = note_header(file)
        labels = None
        if path == case.mask_path and file.image.get_data_dtype().kind == "f":
            label_volume(file, path, case.name, n_classes=len(case.schema))  # refuses what is none
            labels = np.rint(file.data).astype(np.uint8)
    except InputError:  # no single right answer: 'cohort check' of the copy says what is wrong
        shutil.copyfile(path, target)
        return []
    what = _plan(notes, file, labels is not None)
    if what:
        payload = _rewritten(file, labels)
        write_atomically(
            target, deflate(payload) if path.name.endswith(".gz") else payload, durable=False
        )
    else:
        shutil.copyfile(path, target)
    return what


def _plan(notes: HeaderNotes, file: NiftiFile, with_labels: bool) -> list[str]:
    what = []
    if with_labels:
        what.append(f"labels {file.image.get_data_dtype()} -> uint8")
    if notes.singleton_axes:
        what.append(f"shape {tuple(file.image.shape)} -> {file.shape}")
    if notes.places_apart_mm is not None and notes.places_apart_mm > QFORM_TOLERANCE_MM:
        what.append(f"qform moved by {notes.places_apart_mm:.3g} mm onto the sform")
    if notes.misleading_spacing_mm is not None:
        says = " x ".join(f"{s:g}" for s in notes.misleading_spacing_mm)
        what.append(f"voxel size {says} mm of the header made that of the affine")
    if notes.text:
        what.append(f"header text emptied: {', '.join(notes.text)}")
    return what


def _rewritten(file: NiftiFile, labels: np.ndarray | None) -> bytes:
    """The file with a clean header; the stored voxels, and how they are scaled, are the same."""
    old, affine = file.image.header, file.image.affine
    stored = file.image.dataobj.get_unscaled() if labels is None else labels
    version2 = isinstance(old, nib.Nifti2Header)
    header = (nib.Nifti2Header if version2 else nib.Nifti1Header)()
    header.set_data_shape(file.shape)
    header.set_data_dtype(stored.dtype.newbyteorder("<"))
    header.set_xyzt_units("mm")
    if old["sform_code"]:
        header.set_sform(affine, code=int(old["sform_code"]))
    header.set_qform(affine, code=int(old["qform_code"]))
    if farthest_corner_mm(header.get_qform() - affine, file.shape) > GRID_TOLERANCE_MM:
        header.set_qform(affine, code=0)  # a float32 quaternion cannot say this affine
    scaling = file.image.dataobj
    header["scl_slope"] = 1 if labels is not None else scaling.slope
    header["scl_inter"] = 0 if labels is not None else scaling.inter
    offset = 544 if version2 else 352
    header.set_data_offset(offset)
    body = stored.reshape(file.shape).astype(header.get_data_dtype(), copy=False)
    return bytes(header.binaryblock).ljust(offset, b"\0") + body.tobytes(order="F")
