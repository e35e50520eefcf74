"""How a classifier does beyond its AUC: calibration, operating points, decisions, subgroups.

All of it on the pooled out-of-fold probabilities. A threshold is chosen, fold by fold, on what was
said of the cases of the *other* folds, so that neither probability nor outcome of a case is among
those that its threshold is chosen on. (The models behind the other folds did train on the case.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import logit

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.layout import read_participants
from neonet3d.errors import InputError
from neonet3d.metrics.brier import brier_score
from neonet3d.metrics.calibration import (
    calibration_slope,
    expected_calibration_error,
    reliability_table,
)
from neonet3d.metrics.decision_curve import decision_curve
from neonet3d.metrics.operating_point import (
    OperatingPoint,
    accuracy_at,
    choose_sensitivity,
    choose_youden,
)
from neonet3d.metrics.subgroups import Subgroup, subgroup_aucs, tercile_groups
from neonet3d.study.results import Decisions, Judgement, Operating, SubgroupRow

BINS = 5  # of the reliability table: with ten, a hundred cases leave ten in each
THRESHOLDS = np.arange(0.05, 0.651, 0.05)  # probabilities from which one might act
SENSITIVITY = 0.9
SMALLEST = 1e-6  # a probability of exactly 0 or 1 has no logit
COLUMNS = ("sex", "centre", "center", "site")
UNKNOWN = "unknown"

Rule = Callable[[Int[np.ndarray, " n"], Float[np.ndarray, " n"]], OperatingPoint]
RULES: tuple[Rule, ...] = (
    choose_youden,
    lambda labels, scores: choose_sensitivity(labels, scores, SENSITIVITY),
)


def judge(
    outcomes: Int[np.ndarray, " n"],
    probabilities: Float[np.ndarray, " n"],
    folds: Int[np.ndarray, " n"],
    groups: Mapping[str, tuple[str, ...]],
    *,
    seed: int,
) -> Judgement:
    """Everything of one arm.

    Args:
        folds: in which each case was held out.
        groups: by what the cases are divided, and the group of each.
    """
    logits = logit(probabilities.clip(SMALLEST, 1 - SMALLEST))
    try:
        line = calibration_slope(outcomes, logits)
    except InputError:  # a threshold divides the classes without a fault, or all is said alike
        line = None
    choosable = all(len(np.unique(outcomes[folds != fold])) == 2 for fold in np.unique(folds))
    curve = decision_curve(outcomes, probabilities, THRESHOLDS, seed)
    return Judgement(
        brier=brier_score(outcomes, probabilities, seed),
        slope=None if line is None else line.slope,
        intercept=None if line is None else line.intercept,
        calibration_error=expected_calibration_error(outcomes, probabilities, seed, BINS),
        reliability=reliability_table(outcomes, probabilities, BINS),
        operating=tuple(operate(outcomes, probabilities, folds, rule) for rule in RULES)
        if choosable
        else (),
        decisions=Decisions(
            threshold=tuple(curve.threshold.tolist()),
            model=tuple(curve.model.tolist()),
            low=tuple(curve.model_low.tolist()),
            high=tuple(curve.model_high.tolist()),
            treat_all=tuple(curve.treat_all.tolist()),
        ),
        subgroups=tuple(
            SubgroupRow(division=division, **vars(row))
            for division, names in groups.items()
            for row in sorted(subgroup_aucs(outcomes, probabilities, names), key=_place)
        ),
    )


def _place(row: Subgroup) -> tuple[int, str]:
    """Thirds in their order, other groups by name, what is not known last."""
    thirds = ("lowest", "middle", "highest")
    first = row.name.split(" ")[0]
    order = thirds.index(first) if first in thirds else len(thirds) + (row.name == UNKNOWN)
    return order, row.name


def operate(
    outcomes: Int[np.ndarray, " n"],
    probabilities: Float[np.ndarray, " n"],
    folds: Int[np.ndarray, " n"],
    rule: Rule,
) -> Operating:
    """What a rule does on cases that it did not choose its thresholds on."""
    called: Bool[np.ndarray, " n"] = np.zeros(len(outcomes), dtype=bool)
    thresholds, name = [], ""
    for fold in np.unique(folds):
        own = folds == fold
        point = rule(outcomes[~own], probabilities[~own])
        called[own] = probabilities[own] >= point.threshold
        thresholds.append(point.threshold)
        name = point.rule
    found = accuracy_at(0.5, outcomes, called.astype(np.float64))
    return Operating(
        rule=name,
        thresholds=tuple(thresholds),
        sensitivity=found.sensitivity,
        specificity=found.specificity,
        ppv=found.ppv,
        npv=found.npv,
    )


def divide(
    cohort: Cohort, volumes_ml: Mapping[str, float], names: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """The groups of the cases: by tumour volume, and by sex and centre where the table has them.

    Args:
        volumes_ml: of each case's tumour; none for a cohort without tumours.
        names: of the cases, in the order of the groups.
    """
    groups: dict[str, tuple[str, ...]] = {}
    if volumes_ml:
        volumes = np.array([volumes_ml[name] for name in names])
        groups["tumour volume"] = tercile_groups(volumes, "ml")
    table = read_participants(cohort.root, cohort.outcome_name).set_index("case")
    for column in map(str, table):
        if column.lower() in COLUMNS:
            told = table.loc[list(names), column]
            groups[column] = tuple(UNKNOWN if value != value else str(value) for value in told)
    return groups


def tumour_volumes_ml(crops: Cohort) -> dict[str, float]:
    """Of each case, from its reference mask in the patch; empty without tumours in the schema."""
    if "tumour" not in crops.schema:
        return {}
    value, volumes = crops.schema.value("tumour"), {}
    for case in crops:
        mask = case.read_mask()
        assert mask is not None  # the study refuses cases without
        voxel_ml = float(np.prod(mask.spacing_mm)) / 1000
        volumes[case.name] = int((mask.data == value).sum()) * voxel_ml
    return volumes
