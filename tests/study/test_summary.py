from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import read_label_map
from neonet3d.config import Config
from neonet3d.metrics.discrimination import auc, delong, delong_paired
from neonet3d.metrics.overlap import dice
from neonet3d.study.arms import study_arms
from neonet3d.study.paths import FoldPaths
from neonet3d.study.results import StudyResults
from neonet3d.study.summary import _ceiling


def predictions(run: Path) -> list[dict[str, str]]:
    return [
        row
        for fold in ("fold-0", "fold-1")
        for row in csv.DictReader(FoldPaths(run / fold).predictions.read_text().splitlines())
    ]


def test_every_case_is_predicted_once_by_a_model_that_did_not_see_it(
    finished: tuple[Path, StudyResults], scans: Cohort
) -> None:
    _, results = finished
    assert sorted(results.cases) == [case.name for case in scans]
    assert list(results.folds) == [0] * 4 + [1] * 4
    for name, outcome in zip(results.cases, results.outcomes, strict=True):
        assert scans[name].outcome == outcome
    assert results.classes == scans.schema.names
    assert (results.title, results.outcome) == ("Spheres", "pni")


def test_arms_are_pooled_out_of_fold(finished: tuple[Path, StudyResults], tiny: Config) -> None:
    run, results = finished
    table = predictions(run)
    outcomes = np.array([int(row["outcome"]) for row in table])
    expected_arms = study_arms(tiny)
    assert [arm.key for arm in results.arms] == [arm.key for arm in expected_arms]
    for arm, wanted in zip(results.arms, expected_arms, strict=True):
        scores = np.array([float(row[arm.key]) for row in table])
        assert arm.title == wanted.title
        np.testing.assert_array_equal(arm.probabilities, scores)
        expected = delong(outcomes, scores)
        assert arm.auc.value == expected.value == auc(outcomes, scores)
        assert arm.auc.n == 8
        halves = (slice(0, 4), slice(4, 8))
        np.testing.assert_allclose(arm.fold_aucs, [auc(outcomes[h], scores[h]) for h in halves])


def test_arms_are_compared_in_pairs_on_the_same_cases(
    finished: tuple[Path, StudyResults],
) -> None:
    _, results = finished
    arms = {arm.key: arm for arm in results.arms}
    assert [(c.first, c.second) for c in results.comparisons] == [
        ("patten-both_classes", "patten-real"),
        ("patten-both_classes", "resnet18-real"),
    ]
    for pair in results.comparisons:
        first, second = arms[pair.first], arms[pair.second]
        assert pair.difference == pytest.approx(first.auc.value - second.auc.value)
        test = delong_paired(
            np.array(results.outcomes),
            np.array(first.probabilities),
            np.array(second.probabilities),
        )
        assert math.isnan(pair.p_value) or pair.p_value == test.p_value


def test_segmentation_is_measured_on_held_out_scans(
    finished: tuple[Path, StudyResults], scans: Cohort
) -> None:
    run, results = finished
    n = len(scans.schema)
    labels = {name: value for name, value in scans.schema.as_mapping().items() if value}
    scores = []
    for name, fold in zip(results.cases, results.folds, strict=True):
        mask = read_label_map(FoldPaths(run / f"fold-{fold}").masks / f"{name}.nii.gz", n_classes=n)
        scores.append(dice(mask.data, scans[name].read_with_mask()[1].data, labels))
    for name, interval in results.segmentation.items():
        assert interval.value == pytest.approx(np.nanmean([score[name] for score in scores]))
    assert "background" not in results.segmentation
    records = [json.loads(path.read_text()) for path in run.glob("fold-*/crops/crops/*.json")]
    assert len(records) == len(results.cases)
    assert results.no_tumour_found == sum(record["n_lesions"] == 0 for record in records)


def test_balance_is_what_the_folds_wrote(finished: tuple[Path, StudyResults]) -> None:
    run, results = finished
    for part in results.balance:
        balanced = Cohort.open(FoldPaths(run / part.fold).data(part.data))
        for y, real, synthetic in zip((1, 0), part.real, part.synthetic, strict=True):
            of_class = [case for case in balanced if case.outcome == y]
            assert synthetic == sum(case.synthetic for case in of_class)
            assert real == len(of_class) - synthetic
        assert sum(part.real) == 4
        assert part.real[0] + part.synthetic[0] == part.real[1] + part.synthetic[1]
        assert part.drawn - part.rejected == sum(part.synthetic)


def test_fidelity_covers_the_planes_and_copying_every_synthetic_patch(
    finished: tuple[Path, StudyResults],
) -> None:
    _, results = finished
    assert {score.plane for score in results.fidelity} == {"axial", "coronal", "sagittal"}
    assert all(score.n_synthetic > 0 for score in results.fidelity)
    assert results.copying_share.n == 8
    # 4 training patches against 3 held-out ones that did not give the mask.
    assert results.copying_expected == pytest.approx(4 / 7)
    assert [(found.n, found.n_positive) for found in results.membership] == [(8, 4), (8, 4)]
    assert (results.two_sample.n, results.two_sample.n_positive) == (16, 8)
    assert results.two_sample.low <= results.two_sample.value <= results.two_sample.high
    assert set(results.adherence) <= set(results.classes[1:])
    assert set(results.adherence_of_real) <= set(results.classes[1:])
    assert results.psnr_db.n == 8


def test_a_study_says_what_each_stage_took(finished: tuple[Path, StudyResults]) -> None:
    run, results = finished
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert sum(record["stage"] == "train segmenter" for record in logged) == 2
    assert set(results.seconds) <= {record["stage"] for record in logged}
    assert all(seconds >= 0 for seconds in results.seconds.values())


def test_real_patients_have_no_ceiling_and_phantoms_do(
    finished: tuple[Path, StudyResults], scans: Cohort, tiny: Config, tmp_path: Path
) -> None:
    _, results = finished
    assert results.ceiling_auc is None
    writer = CohortWriter(tmp_path / "phantom", scans.schema, outcome_name="pni", channel="HBP")
    truth = [0.1, 0.8, 0.4, 0.3, 0.2, 0.9, 0.1, 0.7]
    for case, probability in zip(scans, truth, strict=True):
        image, mask = case.read_with_mask()
        extra = {"pni_probability": str(probability)}
        writer.add(case.name, image, mask, outcome=case.outcome, extra=extra)
    phantom = writer.finish()
    order = [3, 1, 0, 2, 7, 6, 5, 4]  # that of the predictions, not of the table
    names = [f"case_{i}" for i in order]
    outcomes = np.array([i % 2 for i in order])
    ceiling = _ceiling(phantom, names, outcomes)
    assert ceiling is not None
    assert ceiling.value == auc(outcomes, np.array(truth)[order]) == 15 / 16
