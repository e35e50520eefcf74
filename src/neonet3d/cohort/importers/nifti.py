"""Import NIfTI files: one scan and its mask, or a folder of scans and one of same-named masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.importers.classes import EXAMPLE, ClassMap
from neonet3d.cohort.importers.source import Pair, Source, scans_of_pairs, write_source
from neonet3d.cohort.volume import read_mask_values
from neonet3d.errors import InputError
from neonet3d.types import Advance, LabelSchema, no_advance

ENDINGS = (".nii.gz", ".nii")


def import_nifti(
    source: Path,
    out: Path,
    *,
    masks: Path | None = None,
    labels: pd.DataFrame | None = None,
    outcome_name: str | None = None,
    class_map: ClassMap | None = None,
    advance: Advance = no_advance,
) -> Cohort:
    """Read every scan, verify it and write it as a cohort.

    Args, beside those of ``write_source``:
        source: a ``.nii`` or ``.nii.gz`` file, or a folder of such.
        masks: the scan's mask, or a folder of files with the scans' names.
        class_map: what the values of the masks are; needed where there are masks.

    Raises:
        InputError: as ``list_nifti`` and ``write_source``.
    """
    listed = list_nifti(source, masks=masks, class_map=class_map)
    return write_source(listed, out, labels=labels, outcome_name=outcome_name, advance=advance)


def list_nifti(
    source: Path, *, masks: Path | None = None, class_map: ClassMap | None = None
) -> Source:
    """The scans of a folder, named by their files; no scan is read.

    Raises:
        InputError: no scan, a mask that no scan has the name of, masks whose classes are not
            named (with the values that they hold).
    """
    if masks is None and class_map is not None:
        raise InputError("--label-map names classes of masks, and there are none. Add '--masks'.")
    images = nifti_files(source)
    if not images:
        raise InputError(f"{source} holds no .nii or .nii.gz file. Check the path.")
    found = {} if masks is None else _match(source, images, masks)
    values = None
    if found:
        if class_map is None:
            raise InputError(describe_values(found.values()))
        values = class_map.values(None, where=str(masks))
    schema = LabelSchema(("background",)) if class_map is None else class_map.schema
    pairs = [Pair(name, path, found.get(name)) for name, path in images.items()]
    return Source(
        scans_of_pairs(pairs, n_classes=len(schema), values=values),
        schema,
        "unknown",
        {"layout": "NIfTI"},
        class_map,
    )


def nifti_files(source: Path) -> dict[str, Path]:
    """The NIfTI files of a folder (or the one that is given) by name without ending.

    Raises:
        InputError: ``a.nii`` beside ``a.nii.gz``.
    """
    listed = [source] if source.is_file() else sorted(source.iterdir())
    found: dict[str, Path] = {}
    for path in listed:
        ending = next((e for e in ENDINGS if path.name.endswith(e)), None)
        if ending is None or not path.is_file() or path.name.startswith("."):
            continue
        name = path.name.removesuffix(ending)
        if name in found:
            raise InputError(f"{path} and {found[name].name} have the same name. Remove one.")
        found[name] = path
    return found


def describe_values(masks: Iterable[Path]) -> str:
    """The sentence that asks for ``--label-map``: values of the masks and their voxels."""
    counts: Counter[int] = Counter()
    listed = list(masks)
    for path in listed:
        values, voxels = np.unique(read_mask_values(path).data, return_counts=True)
        counts.update(dict(zip(values.tolist(), voxels.tolist(), strict=True)))
    held = ", ".join(f"{value} ({counts[value]} voxels)" for value in sorted(counts) if value)
    return (
        f"The masks ({len(listed)} files) hold values without names: {held or '0 alone'}. "
        f"Say which to keep: {EXAMPLE}."
    )


def _match(source: Path, images: dict[str, Path], masks: Path) -> dict[str, Path]:
    if not masks.exists():
        raise InputError(f"There is no {masks}. Check '--masks'.")
    found = nifti_files(masks)
    if not found:
        raise InputError(f"{masks} holds no .nii or .nii.gz file. Check '--masks'.")
    if source.is_file() and masks.is_file():
        return {next(iter(images)): masks}
    without = [path for name, path in found.items() if name not in images]
    if without:
        raise InputError(
            f"{len(without)} of {len(found)} masks have the name of no scan; the first is "
            f"{without[0]}, the first scan is {next(iter(images.values())).name}. "
            "Give mask and scan the same name."
        )
    return found
