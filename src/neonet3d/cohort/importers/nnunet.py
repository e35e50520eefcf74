"""Import from the raw layout of nnU-Net v2.

::

    dataset.json        "channel_names", "labels": {"background": 0, ...}, "file_ending"
    imagesTr/<case>_0000.nii.gz     one file per channel
    labelsTr/<case>.nii.gz          may be missing: a case to segment

``imagesTs`` is not read: a cohort's held-out patients are chosen by its folds, and cases without
masks that lie in ``imagesTs`` can be moved to ``imagesTr``.
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

FILE_ENDINGS = (".nii.gz", ".nii")


def import_nnunet(
    source: Path,
    out: Path,
    *,
    labels: pd.DataFrame | None = None,
    outcome_name: str | None = None,
    class_map: ClassMap | None = None,
    channel: str | None = None,
    advance: Advance = no_advance,
) -> Cohort:
    """Read every case of imagesTr, verify it and write it as a cohort.

    Args, beside those of ``write_source``:
        class_map: the classes to keep; all of dataset.json by default.
        channel: name or number of the channel; needed where there are several.

    Raises:
        InputError: as ``list_nnunet`` and ``write_source``.
    """
    listed = list_nnunet(source, class_map=class_map, channel=channel)
    return write_source(listed, out, labels=labels, outcome_name=outcome_name, advance=advance)


def list_nnunet(
    source: Path, *, class_map: ClassMap | None = None, channel: str | None = None
) -> Source:
    """The cases of imagesTr; no scan is read.

    Raises:
        InputError: regions or an ignore label, another format than NIfTI, several channels and
            none chosen, masks without a scan, no scan.
    """
    description = read_dataset_json(source)
    known = _classes(description, source)
    schema = LabelSchema.from_mapping(known) if class_map is None else class_map.schema
    values = None if class_map is None else class_map.values(known, where=str(source))
    number, name = _choose_channel(description, source, channel)
    pairs = _pairs(source, _file_ending(description, source), number)
    return Source(
        scans_of_pairs(pairs, n_classes=len(schema), values=values),
        schema,
        name,
        origin_of(description, "nnU-Net v2") | {"channel": name},
        class_map,
    )


def _classes(description: Mapping[str, Any], source: Path) -> dict[str, int]:
    path, labels = source / "dataset.json", description.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise InputError(
            f"{path}: 'labels' is {labels!r}, not a map such as "
            '{"background": 0, "liver": 1}. Mend it.'
        )
    if "ignore" in labels:
        raise InputError(
            f"{path} has the label 'ignore' ({labels['ignore']!r}): voxels that nobody annotated, "
            "which cannot be told from background here. Complete the masks and remove the label."
        )
    for name, value in labels.items():
        if isinstance(value, list):
            raise InputError(
                f"{path}: the class {name!r} is a region of the values {value}. Regions overlap "
                "and are not supported; write one class for each value, such as "
                '{"background": 0, "liver": 1, "tumour": 2}.'
            )
        if isinstance(value, bool) or not isinstance(value, int):
            raise InputError(
                f"{path}: the class {name!r} has the value {value!r}, not a whole number. Mend it."
            )
    return class_values(labels, source)


def _choose_channel(
    description: Mapping[str, Any], source: Path, channel: str | None
) -> tuple[int, str]:
    path, names = source / "dataset.json", description.get("channel_names")
    if (
        not isinstance(names, dict)
        or not names
        or not all(str(number).isdecimal() for number in names)
    ):
        raise InputError(
            f'{path}: \'channel_names\' is {names!r}, not a map such as {{"0": "MR"}}. Mend it.'
        )
    by_number = {int(number): str(name) for number, name in names.items()}
    if channel is None and len(by_number) == 1:
        return next(iter(by_number.items()))
    listed = ", ".join(f"{number} ({name})" for number, name in by_number.items())
    if channel is None:
        raise InputError(
            f"{path} names {len(by_number)} channels: {listed}. A cohort holds one image per case; "
            f"choose it, such as '--channel {next(iter(by_number))}'."
        )
    chosen = [
        (number, name) for number, name in by_number.items() if channel in (str(number), name)
    ]
    if len(chosen) != 1:
        raise InputError(
            f"--channel {channel} names {len(chosen)} of the channels of {path}, which are "
            f"{listed}. Choose one by its number."
        )
    return chosen[0]


def _file_ending(description: Mapping[str, Any], source: Path) -> str:
    path, ending = source / "dataset.json", description.get("file_ending")
    if ending not in FILE_ENDINGS:
        raise InputError(
            f"{path}: 'file_ending' is {ending!r}; read are {' and '.join(FILE_ENDINGS)}. "
            "Convert the files to NIfTI."
        )
    if "dataset" in description:
        raise InputError(
            f"{path} lists its files under 'dataset', which is not read. "
            "Put them into imagesTr and labelsTr under nnU-Net's names, and remove the list."
        )
    return str(ending)


def _pairs(source: Path, ending: str, channel: int) -> list[Pair]:
    images, masks = source / "imagesTr", source / "labelsTr"
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}")
    channels: dict[str, set[int]] = {}
    for path in sorted(images.glob(f"*{ending}")):
        if path.name.startswith("._"):
            continue  # macOS leaves these beside the files
        named = pattern.fullmatch(path.name)
        if named is None:
            raise InputError(
                f"{path}: the name does not end in the number of a channel, such as "
                f"_0000{ending}. Rename the file."
            )
        channels.setdefault(named[1], set()).add(int(named[2]))
    if not channels:
        raise InputError(f"{images} holds no scan *_0000{ending}. Check the data set.")
    lacking = [case for case, numbers in channels.items() if channel not in numbers]
    if lacking:
        raise InputError(
            f"{lacking[0]}: there is no {images / f'{lacking[0]}_{channel:04d}{ending}'}. "
            "Add the scan of this channel or remove the case."
        )
    for path in sorted(masks.glob(f"*{ending}")):
        case = path.name.removesuffix(ending)
        if not path.name.startswith("._") and case not in channels:
            raise InputError(
                f"{path} is a mask without a scan: there is no {images / case}_0000{ending}. "
                "Add the scan or remove the mask."
            )
    return [
        Pair(
            case,
            images / f"{case}_{channel:04d}{ending}",
            mask if (mask := masks / f"{case}{ending}").is_file() else None,
        )
        for case in sorted(channels)
    ]
