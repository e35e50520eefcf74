"""Import from the layout of the Medical Segmentation Decathlon (arXiv:1902.09063).

::

    dataset.json        "labels": {"0": "background", ...}, "training": [{"image", "label"}, ...]
    imagesTr/<case>.nii.gz
    labelsTr/<case>.nii.gz
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.description import class_values, origin_of, read_dataset_json
from neonet3d.cohort.importers.source import Pair, Source, scans_of_pairs, write_source
from neonet3d.errors import InputError
from neonet3d.types import Advance, LabelSchema, no_advance


def import_msd(
    source: Path,
    out: Path,
    *,
    labels: pd.DataFrame | None = None,
    outcome_name: str | None = None,
    class_map: ClassMap | None = None,
    advance: Advance = no_advance,
) -> Cohort:
    """Read every case, verify it and write it as a cohort; see ``list_msd`` and ``write_source``.

    Args:
        source: folder with dataset.json.
        out: the cohort; must not exist or be empty. Nothing is left there when a case fails.
        labels: table of ``read_table``; its columns go to participants.tsv.
        outcome_name: column of ``labels`` that is the outcome.
        class_map: the classes to keep; all of dataset.json by default.
        advance: called once per case.

    Raises:
        InputError: a description that cannot be read, a damaged or mismatched case (named), labels
            that do not fit, an ``out`` that is not empty.
    """
    listed = list_msd(source, class_map=class_map)
    return write_source(listed, out, labels=labels, outcome_name=outcome_name, advance=advance)


def list_msd(source: Path, *, class_map: ClassMap | None = None) -> Source:
    """The cases that dataset.json lists; no scan is read.

    Raises:
        InputError: a description that cannot be read, or that names what ``class_map`` does not.
    """
    description = read_msd_description(source)
    known = _classes(description, source)
    schema = LabelSchema.from_mapping(known) if class_map is None else class_map.schema
    values = None if class_map is None else class_map.values(known, where=str(source))
    return Source(
        scans_of_pairs(_pairs(description, source), n_classes=len(schema), values=values),
        schema,
        _channel(description),
        origin_of(description, "Medical Segmentation Decathlon"),
        class_map,
    )


def read_msd_description(source: Path) -> dict[str, Any]:
    """dataset.json, known to hold a list ``training``."""
    description = read_dataset_json(source)
    if not isinstance(description.get("training"), list):
        raise InputError(
            f"{source / 'dataset.json'} has no list 'training' of cases, so it is not in the "
            "Decathlon's layout. Bring the data into that layout, with one entry of 'image' and "
            "'label' per case."
        )
    return description


def _classes(description: Mapping[str, Any], source: Path) -> dict[str, int]:
    labels = description.get("labels")
    if not isinstance(labels, dict) or not all(str(value).isdecimal() for value in labels):
        raise InputError(
            f"{source / 'dataset.json'}: 'labels' is {labels!r}, not a map such as "
            '{"0": "background", "1": "liver"}. Mend it.'
        )
    named = [str(name) for name in labels.values()]
    repeated = [name for name in named if named.count(name) > 1]
    if repeated:
        raise InputError(
            f"{source / 'dataset.json'}: two classes have the same name, {repeated[0]!r}. "
            "Rename one."
        )
    return class_values({str(name): int(value) for value, name in labels.items()}, source)


def _channel(description: Mapping[str, Any]) -> str:
    modality = description.get("modality")
    return str(modality.get("0", "MR")) if isinstance(modality, dict) else "MR"


def _pairs(description: Mapping[str, Any], source: Path) -> list[Pair]:
    pairs: dict[str, Pair] = {}
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
        pairs[name] = Pair(
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
