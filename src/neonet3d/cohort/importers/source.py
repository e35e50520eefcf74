"""What a data set holds, listed; and the one place where scans become a cohort folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.importers.classes import ClassMap, keep_classes
from neonet3d.cohort.importers.table import CaseLabels, labels_by_case
from neonet3d.cohort.volume import (
    Volume,
    read_label_map,
    read_mask_values,
    read_volume,
    require_same_grid,
)
from neonet3d.errors import InputError
from neonet3d.types import Advance, LabelSchema, no_advance

ReadScan = Callable[[], tuple[Volume, Volume | None]]


@dataclass(frozen=True)
class Scan:
    """One scan; nothing is read before it is asked for.

    Attributes:
        name: the case in the cohort.
        read: image, and mask with the cohort's values on the same grid where there is one.
        key: what the table of labels calls it; the name by default.
        participant: patient; the table's, else the name, by default.
    """

    name: str
    read: ReadScan
    key: str | None = None
    participant: str | None = None

    @property
    def row(self) -> str:
        return self.name if self.key is None else self.key


@dataclass(frozen=True)
class Source:
    """A data set that was recognised: its scans, and what dataset.json will say of it.

    Attributes:
        origin: where the data come from, for ``neonet3d.source`` of dataset.json.
        class_map: what ``--label-map`` said.
        pseudonymous: the table's names of the patients must not be written.
    """

    scans: tuple[Scan, ...]
    schema: LabelSchema
    channel: str
    origin: Mapping[str, object]
    class_map: ClassMap | None = None
    pseudonymous: bool = False


@dataclass(frozen=True)
class Pair:
    """A NIfTI file and its mask, where there is one."""

    name: str
    image: Path
    mask: Path | None


def scans_of_pairs(
    pairs: Iterable[Pair], *, n_classes: int, values: Mapping[int, int] | None
) -> tuple[Scan, ...]:
    """Scans of files that lie on each other; ``values`` maps the masks' values to classes."""
    return tuple(
        Scan(pair.name, partial(_read_pair, pair, n_classes=n_classes, values=values))
        for pair in pairs
    )


def _read_pair(
    pair: Pair, *, n_classes: int, values: Mapping[int, int] | None
) -> tuple[Volume, Volume | None]:
    image = read_volume(pair.image, name=pair.name)
    if pair.mask is None:
        return image, None
    if values is None:
        mask = read_label_map(pair.mask, n_classes=n_classes, name=pair.name)
    else:
        mask = keep_classes(read_mask_values(pair.mask, name=pair.name), values)
    require_same_grid(image, mask, name=pair.name)
    return image, mask


def write_source(
    source: Source,
    out: Path,
    *,
    labels: pd.DataFrame | None = None,
    outcome_name: str | None = None,
    advance: Advance = no_advance,
) -> Cohort:
    """Read every scan, verify it and write it as a cohort.

    Args:
        out: the cohort; must not exist or be empty. Nothing is left there when a case fails.
        labels: table of ``read_table``; its columns go to participants.tsv.
        outcome_name: column of ``labels`` that is the outcome.
        advance: called once per scan.

    Raises:
        InputError: a damaged or mismatched case (named), labels that do not fit, a class of
            ``--label-map`` that no mask holds, an ``out`` that is not empty.
    """
    known: dict[str, CaseLabels] = {}
    if labels is not None:
        known = labels_by_case(
            labels,
            [scan.row for scan in source.scans],
            outcome_name=outcome_name,
            hide_names=source.pseudonymous,
        )
        if source.pseudonymous:
            _require_no_names(known)
    seen = np.zeros(len(source.schema), dtype=np.int64)
    masks = 0
    with new_folder(out) as folder:
        writer = CohortWriter(
            folder,
            source.schema,
            outcome_name=outcome_name,
            channel=source.channel,
            durable=False,
        )
        for scan in source.scans:
            image, mask = scan.read()
            if mask is not None:
                seen += np.bincount(mask.data.ravel(), minlength=len(seen))
                masks += 1
            case = known.get(scan.row, CaseLabels())
            named_by_table = None if source.pseudonymous else case.participant
            writer.add(
                scan.name,
                image,
                mask,
                outcome=case.outcome,
                participant=scan.participant or named_by_table,
                extra=case.extra,
            )
            advance(note=scan.name)
        provenance: dict[str, object] = {"source": dict(source.origin)}
        if source.class_map is not None:
            _require_seen(source.schema, seen, masks, source.class_map)
            provenance["label_map"] = source.class_map.as_mapping()
        writer.finish(provenance)
    return Cohort.open(out)


def _require_no_names(known: Mapping[str, CaseLabels]) -> None:
    for case in known.values():
        for column, value in case.extra.items():
            if value in known:
                raise InputError(
                    f"The column {column!r} of the table holds PatientIDs, which would be written. "
                    "Remove the column, or import with --keep-ids."
                )


def _require_seen(schema: LabelSchema, seen: np.ndarray, masks: int, class_map: ClassMap) -> None:
    for value, name in enumerate(schema.names):
        if value and not seen[value]:
            origin = " or ".join(class_map.as_mapping()[name])
            raise InputError(
                f"Of {masks} masks none has a voxel of {name!r} ({origin} in --label-map). "
                "Mend the value, or leave the class out."
            )
