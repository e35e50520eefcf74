"""The copying audit that follows sampling: what draws are compared with, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neonet3d.errors import InputError

if TYPE_CHECKING:
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.generation.generator import LatentGenerator


@dataclass(frozen=True)
class Reference:
    """The cases that trained a generator, and those with masks beside them that did not."""

    training: Cohort
    others: Cohort

    @classmethod
    def of(cls, generator: LatentGenerator, cohort: Cohort) -> Reference:
        """From the cohort that the generator was trained on.

        Raises:
            InputError: a case that trained it is not there.
        """
        training = generator.card.training_cases_of(cohort)
        names = {case.name for case in training}
        others = (case for case in cohort if case.name not in names and case.mask_path is not None)
        return cls(training, cohort.subset(others))


def find_reference(
    generator: LatentGenerator, training: Path | None, masks: Path | None
) -> Reference | None:
    """From ``training`` where it is said; else from the cohort of masks where that is it.

    Raises:
        InputError: ``training`` lacks a case that trained the generator.
    """
    from neonet3d.cohort.cohort import Cohort

    if training is not None:
        return Reference.of(generator, Cohort.open(training))
    if masks is None:
        return None
    cohort = Cohort.open(masks)
    try:
        return Reference.of(generator, cohort)
    except InputError:  # masks of other patients: fine to draw on, nothing to compare with
        return None


def audit_draws(
    generator: LatentGenerator, reference: Reference | None, drawn: Path, *, seed: int
) -> tuple[dict[str, Any] | None, str]:
    """Whether the cases of a folder are copies of training cases; as JSON and as a sentence."""
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.generation.audit import audit_copying

    if reference is None:
        return None, "Not audited for copying: give --training, the cohort of training."
    found = audit_copying(
        generator, reference.training, reference.others, Cohort.open(drawn), seed=seed
    )
    return found.as_json(), found.sentence
