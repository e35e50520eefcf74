"""Clinical variables of a cohort's table as numbers: age, sex, CA 19-9, whatever the user names.

Only named columns are read. A table holds more than a reader of scans may know (a grade from the
operation, the day of a relapse), and such a column would say the outcome in other words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.layout import read_participants
from neonet3d.errors import InputError
from neonet3d.generation.sources import SOURCE_COLUMN

NOT_CLINICAL = ("participant_id", "case", "split", "synthetic", SOURCE_COLUMN)
MOST_LEVELS = 10


class ClinicalColumn(BaseModel):
    """A named column: a number, or one of ``levels``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    levels: tuple[str, ...] | None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of its columns of the feature table."""
        if self.levels is None:
            return (self.name,)
        return tuple(f"{self.name}={level}" for level in self.levels)


def fit_columns(training: Cohort, names: Sequence[str]) -> tuple[ClinicalColumn, ...]:
    """Which columns are numbers, and the levels of those that are not, in the training cases.

    Raises:
        InputError: no name, a name that is no column or not a clinical one, a column in which
            nothing is known or with more than ``MOST_LEVELS`` levels.
    """
    if not names:
        raise InputError(
            "No clinical variables are named. Name columns of participants.tsv, such as "
            "--set clinical.columns=[age,sex]; none that says the outcome in other words."
        )
    table = _table(training, names)
    return tuple(_column(training, table[name], name) for name in names)


def clinical_table(cohort: Cohort, columns: Sequence[ClinicalColumn]) -> Float[np.ndarray, "n f"]:
    """Numbers as they are, levels as 0 or 1; nan where a value is missing or of no known level.

    Raises:
        InputError: a column is missing, or holds words where training had numbers.
    """
    table = _table(cohort, [column.name for column in columns])
    parts = []
    for column in columns:
        values = table[column.name]
        if column.levels is None:
            parts.append(_numbers(cohort, values)[:, None])
        else:
            known = values.isin(column.levels).to_numpy()[:, None]
            is_level = values.to_numpy()[:, None] == np.array(column.levels, dtype=object)
            parts.append(np.where(known, is_level.astype(float), np.nan))
    return np.concatenate(parts, axis=1)


def _table(cohort: Cohort, names: Sequence[str]) -> pd.DataFrame:
    table = read_participants(cohort.root, cohort.outcome_name).set_index("case")
    others = (*NOT_CLINICAL, cohort.outcome_name)
    for name in names:
        if name in others:
            raise InputError(
                f"{name!r} is no clinical variable: it identifies the case or is its outcome. "
                "Take it out of clinical.columns."
            )
        if name not in table:
            raise InputError(
                f"participants.tsv of {cohort.root} has no column {name!r} among its variables "
                f"{[column for column in table if column not in others]}. "
                "Correct clinical.columns."
            )
    return table.loc[[case.name for case in cohort], list(names)]


def _column(cohort: Cohort, values: pd.Series, name: str) -> ClinicalColumn:
    known = values.dropna()
    if known.empty:
        raise InputError(
            f"The column {name!r} of {cohort.root} is empty in all training cases. "
            "Take it out of clinical.columns."
        )
    if pd.to_numeric(known, errors="coerce").notna().all():
        return ClinicalColumn(name=name, levels=None)
    levels = tuple(sorted(known.unique()))
    if len(levels) > MOST_LEVELS:
        raise InputError(
            f"The column {name!r} of {cohort.root} holds {len(levels)} different words, too many "
            f"for a variable (at most {MOST_LEVELS}). Write numbers, or group them."
        )
    return ClinicalColumn(name=name, levels=levels)


def _numbers(cohort: Cohort, values: pd.Series) -> Float[np.ndarray, " n"]:
    numbers = pd.to_numeric(values, errors="coerce")
    words = values[~np.isfinite(numbers) & values.notna()]
    if len(words):
        raise InputError(
            f"{words.index[0]}: {values.name} is {words.iloc[0]!r} and not a number, as it is for "
            f"the cases that this model learned from. Correct participants.tsv of {cohort.root}."
        )
    return np.asarray(numbers, dtype=np.float64)
