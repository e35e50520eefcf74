"""Bring data from elsewhere into a cohort folder."""

from __future__ import annotations

from pathlib import Path

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.importers.medmnist import count_samples, import_medmnist
from neonet3d.cohort.importers.msd import import_msd, read_msd_description
from neonet3d.cohort.importers.table import read_table
from neonet3d.errors import InputError
from neonet3d.types import Advance, no_advance

UNDERSTOOD = (
    "a folder with dataset.json in the Medical Segmentation Decathlon's layout, "
    "or a MedMNIST3D .npz file"
)


def import_cohort(
    source: Path,
    out: Path,
    *,
    labels: Path | None = None,
    outcome: str | None = None,
    advance: Advance = no_advance,
) -> Cohort:
    """Recognise a data set, verify it and write it as a cohort.

    Args:
        source: what ``UNDERSTOOD`` lists.
        out: the cohort; must not exist or be empty.
        labels: CSV or TSV with a column ``case`` (or ``participant_id``).
        outcome: the column of ``labels`` to predict; for MedMNIST, what its label 1 means.
        advance: called once per case; there are ``count_cases(source)``.

    Raises:
        InputError: an unknown layout, or what ``import_msd`` and ``import_medmnist`` refuse.
    """
    if _is_medmnist(source):
        if labels is not None:
            raise InputError(f"{source} holds its own labels. Import it without --labels.")
        return import_medmnist(source, out, outcome_name=outcome, advance=advance)
    if outcome is not None and labels is None:
        raise InputError(
            f"The outcome {outcome!r} is a column of a table, and none is given. "
            "Add '--labels TABLE.csv'."
        )
    _require_msd(source)
    table = None if labels is None else read_table(labels)
    return import_msd(source, out, labels=table, outcome_name=outcome, advance=advance)


def count_cases(source: Path) -> int:
    """How many cases ``import_cohort`` will read, for a progress bar.

    Raises:
        InputError: an unknown layout.
    """
    if _is_medmnist(source):
        return count_samples(source)
    _require_msd(source)
    return len(read_msd_description(source)["training"])


def _is_medmnist(source: Path) -> bool:
    return source.is_file() and source.suffix == ".npz"


def _require_msd(source: Path) -> None:
    if not source.exists():
        raise InputError(f"There is no {source}. Check the path.")
    if (source / "participants.tsv").is_file():
        raise InputError(f"{source} is a cohort already. Use it as it is.")
    if not (source / "dataset.json").is_file():
        raise InputError(
            f"{source} is in no layout that can be imported. Understood are {UNDERSTOOD}."
        )
