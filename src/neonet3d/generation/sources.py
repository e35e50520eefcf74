"""Whose mask a synthetic case was drawn on: that patient is no stranger to it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Shaped

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.layout import read_participants

SOURCE_COLUMN = "source_mask"
SOURCE_DIGITS = 16  # of the SHA-256 of the case that gave the mask


def mask_sources(cohort: Cohort) -> list[str]:
    """Source of the mask of each case; empty where the table names none."""
    table = read_participants(cohort.root, cohort.outcome_name).set_index("case")
    if SOURCE_COLUMN not in table:
        return [""] * len(cohort)
    found = [table.loc[case.name, SOURCE_COLUMN] for case in cohort]
    return [source if isinstance(source, str) else "" for source in found]


def drawn_on(synthetic: Cohort, real: Cohort) -> Bool[np.ndarray, "s r"]:
    """Whether a synthetic case has the mask of the patient of a real case, deformed or not."""
    patient = _by_source(real)
    wanted = [patient.get(source) for source in mask_sources(synthetic)]
    return np.array([[case.participant == name for case in real] for name in wanted], dtype=bool)


def case_groups(
    synthetic: Cohort, real: Cohort
) -> tuple[Shaped[np.ndarray, " r"], Shaped[np.ndarray, " s"]]:
    """One group for each real patient, which the synthetic cases on that patient's mask join.

    Synthetic cases on one mask of a stranger share a group too.
    """
    patient = {source: f"patient {name}" for source, name in _by_source(real).items()}
    sources = mask_sources(synthetic)
    of_synthetic = [
        patient.get(source, f"mask {source}" if source else f"case {case.name}")
        for source, case in zip(sources, synthetic, strict=True)
    ]
    return np.array([f"patient {case.participant}" for case in real]), np.array(of_synthetic)


def patients_of(cohort: Cohort) -> list[str]:
    """Patient of each case; a synthetic case is its mask's patient where that one is here."""
    patient = _by_source(cohort)
    return [
        patient.get(source, case.participant)
        for source, case in zip(mask_sources(cohort), cohort, strict=True)
    ]


def _by_source(cohort: Cohort) -> dict[str, str]:
    """Patient of each real case, by the digest that synthetic cases on its mask name.

    A real case whose row names a source is a copy of that case: written anew, its own digest is
    another.
    """
    return {
        source or case.digest()[:SOURCE_DIGITS]: case.participant
        for source, case in zip(mask_sources(cohort), cohort, strict=True)
        if not case.synthetic
    }
