"""Import from the layout of the Medical Segmentation Decathlon (arXiv:1902.09063).

::

    dataset.json        "labels": {"0": "background", ...}, "training": [{"image", "label"}, ...]
    imagesTr/<case>.nii.gz
    labelsTr/<case>.nii.gz
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.importers.table import CaseLabels, labels_by_case
from neonet3d.cohort.volume import read_label_map, read_volume, require_same_grid
from neonet3d.errors import InputError
from neonet3d.types import Advance, LabelSchema, no_advance


@dataclass(frozen=True)
class _Pair:
    """A scan and its mask, where there is one."""

    name: str
    image: Path
    mask: Path | None


def import_msd(
    source: Path,
    out: Path,
    *,
    labels: pd.DataFrame | None = None,
    outcome_name: str | None = None,
    advance: Advance = no_advance,
) -> Cohort:
    """Read every case, verify it and write it as a cohort.

    Args:
        source: folder with dataset.json.
        out: the cohort; must not exist or be empty. Nothing is left there when a case fails.
        labels: table of ``read_table``; its columns go to participants.tsv.
        outcome_name: column of ``labels`` that is the outcome.
        advance: called once per case.

    Raises:
        InputError: a description that cannot be read, a damaged or mismatched case (named), labels
            that do not fit, an ``out`` that is not empty.
    """
    description = read_msd_description(source)
    schema = _schema(description, source)
    pairs = _pairs(description, source)
    known: dict[str, CaseLabels] = {}
    if labels is not None:
        known = labels_by_case(labels, [pair.name for pair in pairs], outcome_name=outcome_name)
    with new_folder(out) as folder:
        writer = CohortWriter(
            folder,
            schema,
            outcome_name=outcome_name,
            channel=_channel(description),
            durable=False,
        )
        for pair in pairs:
            image, mask = read_volume(pair.image, name=pair.name), None
            if pair.mask is not None:
                mask = read_label_map(pair.mask, n_classes=len(schema), name=pair.name)
                require_same_grid(image, mask, name=pair.name)
            case = known.get(pair.name, CaseLabels())
            writer.add(
                pair.name,
                image,
                mask,
                outcome=case.outcome,
                participant=case.participant,
                extra=case.extra,
            )
            advance(note=pair.name)
        given = ("name", "description", "reference", "licence")
        origin = {key: str(description[key]) for key in given if key in description}
        writer.finish({"source": {"layout": "Medical Segmentation Decathlon"} | origin})
    return Cohort.open(out)


def read_msd_description(source: Path) -> dict[str, Any]:
    """dataset.json, known to hold ``labels`` and a list ``training``."""
    path = source / "dataset.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). Copy it again from its source.") from error
    if not isinstance(description, dict) or not isinstance(description.get("training"), list):
        raise InputError(
            f"{path} has no list 'training' of cases, so it is not in the Decathlon's layout. "
            "Bring the data into that layout, with one entry of 'image' and 'label' per case."
        )
    return description


def _schema(description: Mapping[str, Any], source: Path) -> LabelSchema:
    labels = description.get("labels")
    if not isinstance(labels, dict) or not all(str(value).isdecimal() for value in labels):
        raise InputError(
            f"{source / 'dataset.json'}: 'labels' is {labels!r}, not a map such as "
            '{"0": "background", "1": "liver"}. Mend it.'
        )
    by_name = {_safe_name(str(name)): int(value) for value, name in labels.items()}
    if len(by_name) < len(labels):
        raise InputError(
            f"{source / 'dataset.json'}: two classes of {list(labels.values())} have the same "
            "name. Rename one."
        )
    return LabelSchema.from_mapping(by_name)


def _safe_name(name: str) -> str:
    """``Hepatic vein`` to ``hepatic_vein``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _channel(description: Mapping[str, Any]) -> str:
    modality = description.get("modality")
    return str(modality.get("0", "MR")) if isinstance(modality, dict) else "MR"


def _pairs(description: Mapping[str, Any], source: Path) -> list[_Pair]:
    pairs: dict[str, _Pair] = {}
    for entry in description["training"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise InputError(
                f"{source / 'dataset.json'}: the entry {entry!r} of 'training' names no image. "
                'Write {"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}.'
            )
        image, label = Path(entry["image"]), entry.get("label")
        if image.name.startswith("._"):
            continue  # macOS leaves these beside the files
        name = re.sub(r"\.nii(\.gz)?$", "", image.name)
        if name in pairs:
            raise InputError(f"{source / 'dataset.json'} lists the case {name} twice. Keep one.")
        pairs[name] = _Pair(
            name,
            _inside(source, image, name),
            _inside(source, Path(label), name) if isinstance(label, str) else None,
        )
    if not pairs:
        raise InputError(f"{source / 'dataset.json'} lists no training case. Check the data set.")
    return list(pairs.values())


def _inside(source: Path, path: Path, name: str) -> Path:
    if path.is_absolute() or ".." in path.parts:
        raise InputError(
            f"{name}: dataset.json points to {path}, outside {source}. "
            "Use paths such as ./imagesTr/x.nii.gz."
        )
    return source / path
