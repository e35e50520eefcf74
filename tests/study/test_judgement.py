from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import Volume
from neonet3d.metrics.brier import brier_score
from neonet3d.metrics.operating_point import choose_youden
from neonet3d.metrics.subgroups import AT_LEAST, tercile_groups
from neonet3d.study.judgement import divide, judge, operate, tumour_volumes_ml
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))
N = 200


def cases(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes drawn from their probabilities, in five folds."""
    rng = np.random.default_rng(seed)
    probabilities = rng.beta(2, 3, N)
    return (rng.random(N) < probabilities).astype(np.int64), probabilities, np.arange(N) % 5


def test_no_case_helps_to_choose_the_threshold_it_is_judged_by() -> None:
    outcomes, probabilities, folds = cases()
    found = operate(outcomes, probabilities, folds, choose_youden)
    assert found.rule == "Youden"
    expected = [
        choose_youden(outcomes[folds != k], probabilities[folds != k]).threshold for k in range(5)
    ]
    assert list(found.thresholds) == expected
    called = probabilities >= np.array(expected)[folds]
    assert found.sensitivity is not None
    assert found.ppv is not None
    assert found.sensitivity.value == pytest.approx(called[outcomes == 1].mean())
    assert found.ppv.value == pytest.approx(outcomes[called].mean())
    # Changing the outcomes of a fold leaves its own threshold as it was.
    changed = outcomes.copy()
    changed[folds == 2] = 1 - changed[folds == 2]
    again = operate(changed, probabilities, folds, choose_youden)
    assert again.thresholds[2] == found.thresholds[2]
    assert again.thresholds != found.thresholds


def test_true_probabilities_are_called_calibrated() -> None:
    outcomes, probabilities, folds = cases()
    found = judge(outcomes, probabilities, folds, {}, seed=0)
    assert found.brier == brier_score(outcomes, probabilities, 0)
    assert found.slope is not None
    assert found.slope.low < 1 < found.slope.high
    assert found.calibration_error.p_value > 0.05
    assert [one.rule for one in found.operating] == ["Youden", "sensitivity >= 0.9"]
    assert found.operating[1].sensitivity is not None
    assert found.operating[1].sensitivity.low < 0.9 < found.operating[1].sensitivity.high
    assert found.subgroups == ()
    extreme = judge(outcomes, np.where(probabilities > 0.4, 0.99, 0.01), folds, {}, seed=0)
    assert extreme.slope is not None
    assert extreme.slope.high < 1
    assert extreme.calibration_error.p_value < 0.01
    assert extreme.brier.value > found.brier.value


def test_net_benefit_is_of_a_patient_rightly_treated() -> None:
    outcomes = np.array([1] * 40 + [0] * 60)
    known = judge(outcomes, outcomes * 1.0, np.arange(100) % 2, {}, seed=0)
    assert set(np.round(known.decisions.model, 12)) == {0.4}
    at_half = known.decisions.threshold.index(pytest.approx(0.5))
    assert known.decisions.treat_all[at_half] == pytest.approx(0.4 - 0.6)
    assert known.slope is None  # a threshold divides the classes without a fault


def test_one_fold_has_nothing_to_choose_a_threshold_on() -> None:
    outcomes, probabilities, _ = cases()
    assert judge(outcomes, probabilities, np.zeros(N, dtype=int), {}, seed=0).operating == ()


def write_cohort(root: Path, columns: list[dict[str, str]]) -> Cohort:
    """Case i has i + 1 tumour voxels of 0.016 ml."""
    writer = CohortWriter(root, SCHEMA, outcome_name="pni", channel="MR", durable=False)
    for i, extra in enumerate(columns):
        mask = np.ones((8, 8, 4), dtype=np.uint8)
        mask.reshape(-1)[: i + 1] = 2
        volume = Volume(mask.astype(np.float32), np.diag([2.0, 2.0, 4.0, 1.0]))
        writer.add(f"c{i}", volume, volume.with_data(mask), outcome=i % 2, extra=extra)
    return writer.finish()


def test_groups_are_thirds_by_volume_and_what_the_table_tells(tmp_path: Path) -> None:
    told = [{"Sex": "F" if i % 3 else "M", "site": "A" if i < 3 else ""} for i in range(6)]
    cohort = write_cohort(tmp_path / "cohort", told)
    volumes = tumour_volumes_ml(cohort)
    assert volumes["c2"] == pytest.approx(3 * 0.016)
    names = ("c5", "c0", "c3", "c1", "c4", "c2")
    groups = divide(cohort, volumes, names)
    assert list(groups) == ["tumour volume", "Sex", "site"]
    assert groups["Sex"] == ("F", "M", "M", "F", "F", "F")
    assert groups["site"] == ("unknown", "A", "unknown", "A", "unknown", "A")
    thirds = groups["tumour volume"]
    assert thirds[0] == thirds[4]
    assert thirds[1] == thirds[3]
    assert thirds[2] == thirds[5]
    assert all("third" in name and "ml" in name for name in thirds)


def test_a_group_has_a_figure_where_it_has_cases() -> None:
    outcomes, probabilities, folds = cases()
    centre = tuple("small" if i < AT_LEAST else "large" for i in range(N))
    rows = judge(outcomes, probabilities, folds, {"centre": centre}, seed=0).subgroups
    assert [(row.division, row.name) for row in rows] == [("centre", "large"), ("centre", "small")]
    assert rows[1].auc is None
    assert rows[0].auc is not None
    assert (rows[0].n, rows[0].auc.n) == (N - AT_LEAST, N - AT_LEAST)


def test_thirds_come_in_their_order() -> None:
    outcomes, probabilities, folds = cases()
    thirds = tercile_groups(np.random.default_rng(1).random(N), "ml")
    rows = judge(outcomes, probabilities, folds, {"tumour volume": thirds}, seed=0).subgroups
    assert [row.name.split(" ")[0] for row in rows] == ["lowest", "middle", "highest"]
