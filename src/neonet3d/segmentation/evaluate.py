"""A folder of predicted masks, from any tool, against the masks of a cohort."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from neonet3d.cohort.case import Case
from neonet3d.cohort.class_names import class_name
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.label_names import label_names
from neonet3d.cohort.nifti import read_nifti
from neonet3d.cohort.volume import Volume, label_volume, require_same_grid
from neonet3d.engine.progress import progress
from neonet3d.errors import InputError
from neonet3d.segmentation.score import CaseScore, score_case
from neonet3d.types import LabelSchema

ENDINGS = (".nii.gz", ".nii")
LABEL_FILES = ("labels.json", "dataset.json")  # of this package and of nnU-Net


def find_masks(folder: Path, cases: Sequence[Case]) -> dict[str, Path]:
    """``folder/<case>.nii.gz`` (or ``.nii``) of each case.

    Raises:
        InputError: no folder, a case with two masks, or one without: to leave it out would flatter.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}. Give the folder that holds the masks.")
    found = {}
    for case in cases:
        paths = [folder / f"{case.name}{ending}" for ending in ENDINGS]
        present = [path for path in paths if path.is_file()]
        if len(present) > 1:
            raise InputError(
                f"{folder} holds both {present[0].name} and {present[1].name}. Remove one."
            )
        if present:
            found[case.name] = present[0]
    missing = [case.name for case in cases if case.name not in found]
    if missing:
        raise InputError(
            f"{folder} lacks the masks of {len(missing)} of {len(cases)} cases, the first is "
            f"{missing[0]}.nii.gz. Predict them, write an empty mask where nothing was found, or "
            "choose fewer cases with --fold."
        )
    return found


def require_same_classes(folder: Path, schema: LabelSchema) -> None:
    """The classes that a folder of masks declares are the cohort's.

    Raises:
        InputError: ``labels.json`` or ``dataset.json`` (nnU-Net copies its own) names others.
    """
    expected = schema.as_mapping()
    for path in (folder / name for name in LABEL_FILES if (folder / name).is_file()):
        try:
            declared = json.loads(path.read_text(encoding="utf-8"))
            labels = dict(declared["labels"] if path.name == "dataset.json" else declared)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} does not say which classes the masks hold ({error!r}). Mend or remove it."
            ) from error
        if {class_name(str(name)): value for name, value in labels.items()} != {
            class_name(name): value for name, value in expected.items()
        }:
            raise InputError(
                f"{path} names the classes {labels}, but the cohort has {expected}. "
                "Map the masks to the cohort's classes before scoring them."
            )


def score_cases(
    references: Cohort, masks: Mapping[str, Path], *, tolerance_mm: float
) -> list[CaseScore]:
    """Score the mask of each case against its reference.

    Args:
        references: cases that have a reference mask.
        masks: predicted mask of each case.
        tolerance_mm: of the surface Dice.

    Raises:
        InputError: a mask on another grid, with values or names that the cohort does not have.
    """
    scores = []
    with progress("scoring", len(references)) as advance:
        for case in references:
            drawn = case.read_mask()
            assert drawn is not None  # the caller chose cases that have one
            found = _read(masks[case.name], references.schema)
            require_same_grid(
                drawn, found, name=case.name, called=("reference mask", f"{masks[case.name]}")
            )
            scores.append(
                score_case(case, found, drawn, references.schema, tolerance_mm=tolerance_mm)
            )
            advance()
    return scores


def _read(path: Path, schema: LabelSchema) -> Volume:
    """A label map, whose header may name its classes but not other ones."""
    file = read_nifti(path, str(path))
    names = label_names(file.image.header.extensions, str(path)) or {}
    for name, value in schema.as_mapping().items():
        if value in names and class_name(names[value]) != class_name(name):
            raise InputError(
                f"{path}: the header calls the value {value} {names[value]!r}, but in the cohort "
                f"it is {name!r}. Map the masks to the cohort's classes before scoring them."
            )
    return label_volume(file, path, str(path), n_classes=len(schema))
