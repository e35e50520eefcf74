"""The cohort on disk: nnU-Net v2 raw layout plus a BIDS-style table.

::

    dataset.json                    classes of the masks; name of the outcome column
    participants.tsv                participant_id, case, <outcome>, split, anything else
    imagesTr/<case>_0000.nii.gz
    labelsTr/<case>.nii.gz          may be missing: a case to segment

A ``Cohort`` shows the cases it was made with and no others: a stage that is handed the training
patients of a fold has no way to the rest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from neonet3d.cohort.case import Case, case_of_row
from neonet3d.cohort.layout import (
    SAFE_ID,
    Fault,
    read_description,
    survey_participants,
)
from neonet3d.cohort.notebook import table_html
from neonet3d.cohort.volume import (
    Volume,
    write_atomically,
)
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema


@dataclass(frozen=True)
class Cohort:
    """Some cases of a cohort folder, the classes of their masks and the name of the outcome.

    Example:
        >>> cohort = Cohort.open("phantom")            # doctest: +SKIP
        >>> image, mask = cohort["case_0001"].read()   # doctest: +SKIP
    """

    root: Path
    schema: LabelSchema
    outcome_name: str | None
    cases: tuple[Case, ...]

    @classmethod
    def open(cls, root: Path | str) -> Cohort:
        """Read ``dataset.json`` and ``participants.tsv``; scans stay on disk.

        Raises:
            InputError: missing folder or files, unsafe or repeated ids, outcomes that are not 0/1.
        """
        cohort, faults = cls.survey(root)
        if faults:
            raise InputError(faults[0].sentence)
        return cohort

    @classmethod
    def survey(cls, root: Path | str) -> tuple[Cohort, tuple[Fault, ...]]:
        """The cases that can be opened, and why the others cannot: for ``cohort check``.

        Raises:
            InputError: a folder that is no cohort, or a table of which no row can be read.
        """
        root = Path(root)
        if not root.is_dir():
            raise InputError(
                f"There is no folder {root}. Make a cohort with 'neonet3d cohort import' or "
                "'neonet3d cohort phantom', or check the path."
            )
        for name in ("dataset.json", "participants.tsv"):
            if not (root / name).is_file():
                raise InputError(
                    f"{root} holds no {name}, so it is not a cohort. "
                    "Bring your data into the layout with 'neonet3d cohort import'."
                )
        description = read_description(root)
        schema = LabelSchema.from_mapping(description["labels"])
        outcome_name = description.get("neonet3d", {}).get("outcome")
        table, unusable = survey_participants(root, outcome_name)
        cases, faults = [], list(unusable)
        for row in table.to_dict("records"):
            try:
                cases.append(case_of_row(root, schema, outcome_name, row))
            except InputError as error:
                faults.append(Fault(row["case"], str(error)))
        return cls(root, schema, outcome_name, tuple(cases)), tuple(faults)

    def __len__(self) -> int:
        return len(self.cases)

    def _repr_html_(self) -> str:
        """How many of what, for notebooks; no case is named."""
        known = [case.outcome for case in self.cases if case.outcome is not None]
        rows = [
            ("cases", str(len(self))),
            ("participants", str(len({case.participant for case in self.cases}))),
            ("with a mask", str(sum(case.mask_path is not None for case in self.cases))),
            ("synthetic", str(sum(case.synthetic for case in self.cases))),
            ("classes", ", ".join(self.schema.names)),
        ]
        if self.outcome_name is not None:
            rows.append((f"{self.outcome_name} = 1", f"{sum(known)} of {len(known)}"))
        return table_html(("cohort", ""), rows)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __getitem__(self, name: str) -> Case:
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(f"{name} is not among these {len(self)} cases of {self.root}")

    def subset(self, cases: Iterable[Case]) -> Cohort:
        """The same cohort with only these cases in sight."""
        chosen = {case.name for case in cases}
        return replace(self, cases=tuple(case for case in self.cases if case.name in chosen))

    def table_sha256(self) -> str:
        """Of participants.tsv: it says more of a case than ``Case.digest`` does."""
        return hashlib.sha256((self.root / "participants.tsv").read_bytes()).hexdigest()

    @property
    def said_of_all(self) -> tuple[str, ...]:
        """What dataset.json says, which no digest of a case holds: its outcome and its classes."""
        return (self.outcome_name or "", *self.schema.names)

    @property
    def channel(self) -> str:
        """What the images show, such as ``MR``; nnU-Net normalises ``CT`` in its own way."""
        return str(read_description(self.root).get("channel_names", {}).get("0", "MR"))

    @property
    def outcomes(self) -> np.ndarray:
        """Outcome of each case, 0 or 1, int64 (n,).

        Raises:
            InputError: when the cohort has no outcome, or a case has none.
        """
        if self.outcome_name is None:
            raise InputError(
                f"{self.root} has no outcome to learn: dataset.json names none. Import the cohort "
                "with a table of labels ('neonet3d cohort import SRC OUT --labels TABLE.csv')."
            )
        missing = [case.name for case in self if case.outcome is None]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(self)} cases of {self.root} have no {self.outcome_name!r} "
                f"(the first is {missing[0]}). Fill the column in participants.tsv."
            )
        return np.array([case.outcome for case in self], dtype=np.int64)

    def with_overlaid_masks(self, masks: Mapping[str, Path], schema: LabelSchema) -> Cohort:
        """The same cases with masks from elsewhere, such as those that a segmenter predicted.

        Args:
            masks: path by case; a case that is not in it has no mask then.
            schema: classes of these masks, which need not be the cohort's.
        """
        cases = tuple(replace(case, mask_path=masks.get(case.name), schema=schema) for case in self)
        return replace(self, cases=cases, schema=schema)


class CohortWriter:
    """Builds a cohort folder; the table is written last, so a half-written one does not open."""

    def __init__(
        self,
        root: Path,
        schema: LabelSchema,
        *,
        outcome_name: str | None,
        channel: str,
        durable: bool = True,
    ) -> None:
        self.root = root
        self.schema = schema
        self.outcome_name = outcome_name
        self.channel = channel
        self.durable = durable
        self.rows: list[dict[str, str]] = []

    def add(
        self,
        name: str,
        image: Volume,
        mask: Volume | None,
        *,
        outcome: int | None = None,
        participant: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """Write one case. ``extra`` are further columns of participants.tsv."""
        self.add_written(name, outcome=outcome, participant=participant, extra=extra)
        image.write(self.root / "imagesTr" / f"{name}_0000.nii.gz", durable=self.durable)
        if mask is not None:
            path = self.root / "labelsTr" / f"{name}.nii.gz"
            mask.write(path, durable=self.durable, schema=self.schema)

    def add_written(
        self,
        name: str,
        *,
        outcome: int | None = None,
        participant: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """List a case whose files already stand in the folder."""
        if not SAFE_ID.fullmatch(name):
            raise InputError(
                f"The case name {name!r} may hold only letters, digits, '.', '_' and '-'. "
                "Rename it."
            )
        row = {"participant_id": participant or name, "case": name}
        if self.outcome_name is not None:
            row[self.outcome_name] = "n/a" if outcome is None else str(outcome)
        self.rows.append(row | dict(extra or {}))

    def finish(self, provenance: Mapping[str, object] | None = None) -> Cohort:
        """Write dataset.json and participants.tsv and open the result."""
        description = {
            "channel_names": {"0": self.channel},
            "labels": self.schema.as_mapping(),
            "numTraining": len(self.rows),
            "file_ending": ".nii.gz",
            "neonet3d": {"outcome": self.outcome_name} | dict(provenance or {}),
        }
        write_atomically(
            self.root / "dataset.json", (json.dumps(description, indent=2) + "\n").encode()
        )
        table = pd.DataFrame(self.rows).to_csv(sep="\t", index=False, na_rep="n/a")
        write_atomically(self.root / "participants.tsv", table.encode())
        return Cohort.open(self.root)
