"""Repeated cross-validation: finished studies of one cohort that differ in their seed.

Each repeat divides the patients anew and trains everything anew, in a run folder of its own, so
that repeats may be made one after the other or on several machines. What they say together is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict

from neonet3d.errors import InputError
from neonet3d.metrics.cross_validation import corrected_t_test, cross_validated_auc
from neonet3d.metrics.interval import Interval
from neonet3d.study.results import StudyResults


class RepeatedArm(BaseModel):
    """One arm over all repeats.

    Attributes:
        pooled: mean of the repeats' pooled AUCs, with DeLong's interval in which every patient
            counts once.
        repeat_aucs: pooled, of each repeat.
        fold_mean: mean AUC of the folds of all repeats, with the corrected interval of Nadeau and
            Bengio.
        difference: of the first arm less this one over those folds; None for the first itself.
        p_value: of that difference, by the corrected resampled t-test.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    key: str
    title: str
    pooled: Interval
    repeat_aucs: tuple[float, ...]
    fold_mean: Interval
    difference: Interval | None
    p_value: float | None


def summarise_repeats(studies: Sequence[StudyResults]) -> tuple[RepeatedArm, ...]:
    """Every arm over all repeats, in the order of the studies' arms.

    Raises:
        InputError: fewer than two, other patients, outcomes or arms, or the same folds twice.
    """
    first = studies[0]
    order = [_order(study, first) for study in studies]
    _require_repeats(studies, order)
    labels = np.array(first.outcomes)
    folds = np.stack([np.array(s.folds)[o] for s, o in zip(studies, order, strict=True)])
    scores = {arm.key: _scores(studies, order, arm.key) for arm in first.arms}
    found = {key: cross_validated_auc(labels, of, folds) for key, of in scores.items()}
    leading = np.array(found[first.arms[0].key].fold_aucs)
    n_test = len(labels) / float(np.mean([len(set(study.folds)) for study in studies]))
    arms = []
    for arm in first.arms:
        own = found[arm.key]
        compared = None
        if arm.key != first.arms[0].key:
            of_folds = np.array(own.fold_aucs)
            known = np.isfinite(leading) & np.isfinite(of_folds)
            compared = corrected_t_test(
                leading[known], of_folds[known], len(labels) - n_test, n_test
            )
        arms.append(
            RepeatedArm(
                key=arm.key,
                title=arm.title,
                pooled=own.pooled,
                repeat_aucs=own.repeat_aucs,
                fold_mean=own.fold_mean,
                difference=None if compared is None else compared.interval,
                p_value=None if compared is None else compared.p_value,
            )
        )
    return tuple(arms)


def require_one_configuration(runs: Sequence[Path]) -> None:
    """Repeats differ in their seed alone.

    Raises:
        InputError: another entry of their ``config.yaml`` differs, or one cannot be read.
    """
    first: dict[str, object] | None = None
    for run in runs:
        path = run / "config.yaml"
        if not path.is_file():
            raise InputError(f"{run} has no config.yaml, so it is no run. Check the path.")
        own = yaml.safe_load(path.read_text()) | {"seed": None}
        first = first or own
        other = [section for section in own if own[section] != first.get(section)]
        if other:
            raise InputError(
                f"{run} was run with another {other[0]!r} than {runs[0]}. Repeats differ in --seed "
                "alone: give runs of one configuration."
            )


def _order(study: StudyResults, like: StudyResults) -> Int[np.ndarray, " n"]:
    """Where the cases of ``like`` are in a study."""
    at = {name: i for i, name in enumerate(study.cases)}
    if at.keys() != set(like.cases):
        raise InputError("The studies are of other patients. Give repeats of one cohort.")
    return np.array([at[name] for name in like.cases])


def _scores(
    studies: Sequence[StudyResults], order: Sequence[Int[np.ndarray, " n"]], key: str
) -> Float[np.ndarray, "r n"]:
    return np.stack(
        [
            np.array(next(arm for arm in study.arms if arm.key == key).probabilities)[of]
            for study, of in zip(studies, order, strict=True)
        ]
    )


def _require_repeats(
    studies: Sequence[StudyResults], order: Sequence[Int[np.ndarray, " n"]]
) -> None:
    if len(studies) < 2:
        raise InputError("One study has no repeats. Give the run folders of two or more.")
    first, seen = studies[0], set()
    for study, of in zip(studies, order, strict=True):
        if [arm.key for arm in study.arms] != [arm.key for arm in first.arms]:
            raise InputError("The studies have other arms. Repeat with the same configuration.")
        if (np.array(study.outcomes)[of] != np.array(first.outcomes)).any():
            raise InputError("The studies have other outcomes of the patients. Use one table.")
        if len(set(study.folds)) != len(set(first.folds)):
            raise InputError(
                f"The studies have {len(set(first.folds))} and {len(set(study.folds))} folds. "
                "Repeat with the same study.folds."
            )
        folds = tuple(np.array(study.folds)[of].tolist())
        if folds in seen:
            raise InputError(
                "Two of the studies have the same folds, so they are no repeats. Give each another "
                "--seed."
            )
        seen.add(folds)
