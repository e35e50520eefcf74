"""Bring data from elsewhere into a cohort folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydicom.misc import is_dicom

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.description import is_nnunet, read_dataset_json
from neonet3d.cohort.importers.dicom import list_dicom
from neonet3d.cohort.importers.dicom_headers import list_files
from neonet3d.cohort.importers.medmnist import count_samples, import_medmnist
from neonet3d.cohort.importers.msd import list_msd
from neonet3d.cohort.importers.nifti import list_nifti, nifti_files
from neonet3d.cohort.importers.nnunet import list_nnunet
from neonet3d.cohort.importers.source import write_source
from neonet3d.cohort.importers.table import read_table
from neonet3d.errors import InputError
from neonet3d.types import Advance, no_advance

UNDERSTOOD = (
    "a folder of DICOM files, a NIfTI file or a folder of such, a folder with dataset.json in the "
    "Medical Segmentation Decathlon's layout or nnU-Net's, or a MedMNIST3D .npz file"
)
MEDMNIST, MSD, NNUNET = "MedMNIST3D", "Medical Segmentation Decathlon", "nnU-Net"
NIFTI, DICOM = "NIfTI", "DICOM"
# Beside labels and outcome, which are for all (but MedMNIST, which has its own).
TAKES: dict[str, tuple[str, ...]] = {
    MEDMNIST: (),
    MSD: ("label_map",),
    NNUNET: ("label_map", "channel"),
    NIFTI: ("label_map", "masks"),
    DICOM: ("label_map", "masks", "series", "keep_ids"),
}


@dataclass(frozen=True)
class ImportOptions:
    """What ``cohort import`` may be told.

    Attributes:
        labels: CSV, TSV or XLSX with a column ``case`` (``participant_id``; for DICOM,
            ``PatientID``).
        outcome: the column of ``labels`` to predict; for MedMNIST, what its label 1 means.
        masks: masks that do not stand in the source (NIfTI, DICOM).
        label_map: classes of the masks to keep, ``liver=5,portal_vein=25``.
        channel: name or number of one of several channels (nnU-Net).
        series: part of SeriesDescription, SeriesNumber or SeriesInstanceUID (DICOM).
        keep_ids: PatientIDs become participant ids (DICOM).
    """

    labels: Path | None = None
    outcome: str | None = None
    masks: Path | None = None
    label_map: str | None = None
    channel: str | None = None
    series: str | None = None
    keep_ids: bool = False


@dataclass(frozen=True)
class ImportPlan:
    """A data set that was recognised and listed; nothing is written before ``write``."""

    n_cases: int
    write: Callable[..., Cohort]  # (out, advance=...), which is called once per case


def import_cohort(
    source: Path,
    out: Path,
    options: ImportOptions | None = None,
    *,
    advance: Advance = no_advance,
) -> Cohort:
    """Recognise a data set, verify it and write it as a cohort.

    Args:
        source: what ``UNDERSTOOD`` lists.
        out: the cohort; must not exist or be empty.
        advance: called once per case.

    Raises:
        InputError: an unknown layout, or what the layout's importer refuses.
    """
    return plan_import(source, options or ImportOptions()).write(out, advance=advance)


def plan_import(
    source: Path, options: ImportOptions, *, advance: Advance = no_advance
) -> ImportPlan:
    """Recognise a data set and list its cases; only headers are read.

    Args:
        advance: called once per file of a DICOM tree (there are ``count_headers(source)``).

    Raises:
        InputError: an unknown layout, an option that is not for it, or what it refuses.
    """
    layout = recognise(source)
    _require_taken(layout, source, options)
    if layout == MEDMNIST:
        write = partial(import_medmnist, source, outcome_name=options.outcome)
        return ImportPlan(count_samples(source), write)
    if options.outcome is not None and options.labels is None:
        raise InputError(
            f"The outcome {options.outcome!r} is a column of a table, and none is given. "
            "Add '--labels TABLE.csv'."
        )
    table = None
    if options.labels is not None:
        by_id = layout == DICOM
        hide = by_id and not options.keep_ids
        table = read_table(options.labels, by_patient_id=by_id, hide_names=hide)
    class_map = None if options.label_map is None else ClassMap.parse(options.label_map)
    if layout == MSD:
        listed = list_msd(source, class_map=class_map)
    elif layout == NNUNET:
        listed = list_nnunet(source, class_map=class_map, channel=options.channel)
    elif layout == NIFTI:
        listed = list_nifti(source, masks=options.masks, class_map=class_map)
    else:
        listed = list_dicom(
            source,
            series=options.series,
            masks=options.masks,
            class_map=class_map,
            keep_ids=options.keep_ids,
            advance=advance,
        )
    return ImportPlan(
        len(listed.scans),
        partial(write_source, listed, labels=table, outcome_name=options.outcome),
    )


def count_headers(source: Path) -> int:
    """How many headers listing a source reads, for a progress bar; 0 but for DICOM."""
    return len(list_files(source)) if recognise(source) == DICOM else 0


def recognise(source: Path) -> str:
    """The layout of a data set, one of the keys of ``TAKES``.

    Raises:
        InputError: no such file or folder, a cohort, or an unknown layout.
    """
    if not source.exists():
        raise InputError(f"There is no {source}. Check the path.")
    if source.is_file() and source.suffix == ".npz":
        return MEDMNIST
    if (source / "participants.tsv").is_file() and (source / "imagesTr").is_dir():
        raise InputError(f"{source} is a cohort already. Use it as it is.")
    if (source / "dataset_description.json").is_file():
        raise InputError(
            f"{source} looks like BIDS, which is not imported. Put the NIfTI files of the phase "
            "that you want into a folder, and give the labels with --labels participants.tsv."
        )
    if (source / "dataset.json").is_file():
        return NNUNET if is_nnunet(read_dataset_json(source)) else MSD
    if any(is_dicom(path) for path in list_files(source)):
        return DICOM
    if nifti_files(source):
        return NIFTI
    raise InputError(f"{source} is in no layout that can be imported. Understood are {UNDERSTOOD}.")


def _require_taken(layout: str, source: Path, options: ImportOptions) -> None:
    if layout == MEDMNIST and options.labels is not None:
        raise InputError(f"{source} holds its own labels. Import it without --labels.")
    for name in ("masks", "label_map", "channel", "series", "keep_ids"):
        if getattr(options, name) and name not in TAKES[layout]:
            takers = [other for other, names in TAKES.items() if name in names]
            raise InputError(
                f"{source} is {layout} data, and --{name.replace('_', '-')} is for "
                f"{' and '.join(takers)}. Leave it out."
            )
