"""Fold scope: what is fitted in a fold does not depend on what the fold holds out."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from neonet3d.classification.predict import Classifier
from neonet3d.cohort.cohort import Case, Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config, load_config
from neonet3d.engine.artefact import read_card
from neonet3d.engine.executor import run_here
from neonet3d.generation.generator import LatentGenerator
from neonet3d.segmentation.tlcr import crop_cohort
from neonet3d.study import fold as fold_module
from neonet3d.study.arms import study_arms
from neonet3d.study.fold import (
    FoldWork,
    _probabilities,
    count_without_tumour,
    fold_tasks,
    training_tasks,
)
from neonet3d.study.paths import FoldPaths

ARMS = tuple(arm.key for arm in study_arms(load_config("demo")))
UNSEEN = (lambda *_: None, lambda: None)  # seconds and progress
HELD_OUT = ("case_2", "case_5", "case_6")
SEGMENTERS = {"segmenter", "segmenter/localiser"}
ARTEFACTS = SEGMENTERS | {
    "generator/autoencoder",
    "generator/anatomy",
    "generator/unet",
    "generator/controlnet",
    "generator/refiner",
    "generator/detail",
    "generator/calibration",
    *(f"classifiers/{arm}" for arm in ARMS),
}


@dataclass(frozen=True)
class Divided:
    """One division of a cohort, as whole scans and as crops."""

    scans: Fold
    crops: Fold


def divide(cohort: Cohort, config: Config, root: Path) -> Divided:
    crops = crop_cohort(cohort, root, config.roi)
    scans, patches = (
        Fold(
            "fold-0",
            part.subset(case for case in part if case.name not in HELD_OUT),
            part.subset(case for case in part if case.name in HELD_OUT),
        )
        for part in (cohort, crops)
    )
    return Divided(scans, patches)


def altered(
    cohort: Cohort, root: Path, change: Callable[[Case, Volume, Volume], tuple[Volume, Volume, int]]
) -> Cohort:
    """A copy in which ``change`` decides image, mask and outcome of every case."""
    writer = CohortWriter(root, cohort.schema, outcome_name="pni", channel="HBP", durable=False)
    for case in cohort:
        image, mask, outcome = change(case, *case.read_with_mask())
        writer.add(case.name, image, mask, outcome=outcome)
    return writer.finish()


def scramble(case: Case, image: Volume, mask: Volume) -> tuple[Volume, Volume, int]:
    """A held-out case: noise for its image, another patient's organs, the other label."""
    assert case.outcome is not None
    if case.name not in HELD_OUT:
        return image, mask, case.outcome
    noise = np.random.default_rng(99).uniform(1, 2000, image.shape).astype(np.float32)
    other = np.roll(mask.data[::-1, ::-1], 2, axis=0)
    return image.with_data(noise), mask.with_data(np.ascontiguousarray(other)), 1 - case.outcome


def train_models(scans: Fold, crops: Fold, config: Config, paths: FoldPaths) -> None:
    """Everything of the fold that is fitted."""
    run_here(training_tasks(FoldWork(scans, crops, config, paths)), *UNSEEN)


def run_fold(scans: Fold, crops: Fold, config: Config, paths: FoldPaths) -> None:
    run_here(fold_tasks(FoldWork(scans, crops, config, paths)), *UNSEEN)


def trained_files(root: Path) -> dict[str, bytes]:
    """Every file of every artefact and of the balanced cohort."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def divided(scans: Cohort, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Divided:
    return divide(scans, tiny, tmp_path_factory.mktemp("crops") / "crops")


@pytest.fixture(scope="module")
def trained(divided: Divided, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> FoldPaths:
    """Everything that is fitted in the fold, once."""
    paths = FoldPaths(tmp_path_factory.mktemp("fold") / "fold-0")
    train_models(divided.scans, divided.crops, tiny, paths)
    return paths


def test_a_fold_trains_every_artefact(trained: FoldPaths) -> None:
    files = trained_files(trained.root)
    for artefact in ARTEFACTS:
        assert {f"{artefact}/model.safetensors", f"{artefact}/model.json"} <= set(files)
    assert {name.rpartition("/")[0] for name in files if name.endswith("model.json")} == ARTEFACTS
    balanced = Cohort.open(trained.data("both_classes"))
    assert sum(case.synthetic for case in balanced) > 0
    assert np.bincount(balanced.outcomes).tolist() == [len(balanced) // 2] * 2


def test_held_out_cases_leave_no_trace(
    scans: Cohort, trained: FoldPaths, tiny: Config, tmp_path: Path
) -> None:
    """Other images, masks and labels of the held-out cases: the same bytes everywhere."""
    noise = altered(scans, tmp_path / "scans", scramble)
    other = divide(noise, tiny, tmp_path / "crops")
    assert {case.name for case in other.scans.held_out} == set(HELD_OUT)
    for name in HELD_OUT:
        assert noise[name].outcome != scans[name].outcome
        assert noise[name].digest() != scans[name].digest()
        assert other.crops.held_out[name].image_path.read_bytes()
    paths = FoldPaths(tmp_path / "again" / "fold-0")
    train_models(other.scans, other.crops, tiny, paths)
    before, after = trained_files(trained.root), trained_files(paths.root)
    assert set(before) == set(after)
    assert [name for name in before if before[name] != after[name]] == []


def brightened(case: Case, image: Volume, mask: Volume) -> tuple[Volume, Volume, int]:
    """One voxel of one training image, in the tumour, by one unit."""
    assert case.outcome is not None
    if case.name != "case_1":
        return image, mask, case.outcome
    data = image.data.copy()
    data[tuple(np.argwhere(mask.data == 4)[0])] += 1
    return image.with_data(data), mask, case.outcome


def relabelled(case: Case, image: Volume, mask: Volume) -> tuple[Volume, Volume, int]:
    """The labels of two training cases, exchanged."""
    assert case.outcome is not None
    return image, mask, 1 - case.outcome if case.name in ("case_0", "case_1") else case.outcome


def test_one_voxel_of_a_training_case_changes_every_artefact(
    scans: Cohort, trained: FoldPaths, tiny: Config, tmp_path: Path
) -> None:
    """The converse, without which the test above could not fail."""
    other = divide(altered(scans, tmp_path / "scans", brightened), tiny, tmp_path / "crops")
    paths = FoldPaths(tmp_path / "again" / "fold-0")
    train_models(other.scans, other.crops, tiny, paths)
    before, after = trained_files(trained.root), trained_files(paths.root)
    for artefact in ARTEFACTS:
        assert before[f"{artefact}/model.json"] != after[f"{artefact}/model.json"]
        if artefact not in SEGMENTERS:  # their two steps may draw patches of other cases
            name = f"{artefact}/model.safetensors"
            assert before[name] != after[name], name


def test_training_labels_reach_the_label_guided_parts(
    scans: Cohort, trained: FoldPaths, tiny: Config, tmp_path: Path
) -> None:
    other = divide(altered(scans, tmp_path / "scans", relabelled), tiny, tmp_path / "crops")
    paths = FoldPaths(tmp_path / "again" / "fold-0")
    train_models(other.scans, other.crops, tiny, paths)
    before, after = trained_files(trained.root), trained_files(paths.root)
    changed = {
        a for a in ARTEFACTS if before[f"{a}/model.safetensors"] != after[f"{a}/model.safetensors"]
    }
    assert {f"classifiers/{arm}" for arm in ARMS} <= changed
    # Images and masks are as they were, and neither of these sees a label.
    assert not (SEGMENTERS | {"generator/autoencoder"}) & changed
    # The anatomy prior is fitted without labels; only its bank says whose amplitudes are whose.
    first, second = (
        load_file(root / "generator" / "anatomy" / "model.safetensors")
        for root in (trained.root, paths.root)
    )
    assert {name for name in first if not torch.equal(first[name], second[name])} == {
        "bank.outcomes"
    }


def test_only_training_cases_are_read(
    divided: Divided, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a held-out case, training hashes the files (to refuse it as a training case), no more."""
    read: set[str] = set()
    image, mask = Case.read_image, Case.read_mask
    monkeypatch.setattr(Case, "read_image", lambda case: (read.add(case.name), image(case))[1])
    monkeypatch.setattr(Case, "read_mask", lambda case: (read.add(case.name), mask(case))[1])
    paths = FoldPaths(tmp_path / "fold-0")
    train_models(divided.scans, divided.crops, tiny, paths)
    training = {case.name for case in divided.scans.training}
    assert training <= read
    assert not read & set(HELD_OUT)
    assert all(name.startswith("synthetic_") for name in read - training)


def test_every_artefact_names_its_training_cases_and_no_held_out_one(
    divided: Divided, trained: FoldPaths
) -> None:
    scans = {case.digest() for case in divided.scans.training}
    crops = {case.digest() for case in divided.crops.training}
    held_out = {case.digest() for fold in (divided.scans, divided.crops) for case in fold.held_out}
    for artefact in ARTEFACTS:
        card = read_card(trained.root / artefact)
        assert card.fold == "fold-0"
        assert not held_out & set(card.training_cases)
        if artefact in SEGMENTERS:
            assert set(card.training_cases) == scans
        elif artefact != "classifiers/patten-both_classes":  # its cases were written anew
            assert set(card.training_cases) == crops


def test_synthetic_cases_belong_to_the_fold_of_their_generator_and_mask(
    divided: Divided, trained: FoldPaths
) -> None:
    lines = (trained.data("both_classes") / "participants.tsv").read_text().splitlines()
    table = list(csv.DictReader(lines, delimiter="\t"))
    synthetic = [row for row in table if row["synthetic"] == "1"]
    sources = {case.digest()[:16] for case in divided.crops.training}
    generator = LatentGenerator.load(trained.generator).card.weights_sha256
    assert synthetic
    for row in synthetic:
        assert row["source_mask"] in sources
        assert generator.startswith(row["generator"])
        assert row["fold"] == "fold-0"
    real = [row["case"] for row in table if row["synthetic"] == "0"]
    assert real == [case.name for case in divided.crops.training]


def test_models_that_stand_are_not_trained_again(
    divided: Divided, trained: FoldPaths, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> float:
        raise AssertionError("a training loop was run")

    for module in ("segmentation", "generation", "classification"):
        monkeypatch.setattr(f"neonet3d.{module}.train.train_loop", never)
    before = {p: p.stat().st_mtime_ns for p in trained.root.rglob("*") if p.is_file()}
    train_models(divided.scans, divided.crops, tiny, trained)
    assert before == {p: p.stat().st_mtime_ns for p in trained.root.rglob("*") if p.is_file()}


def test_a_fold_predicts_each_held_out_case_with_every_arm(
    divided: Divided, trained: FoldPaths, tiny: Config
) -> None:
    stages: list[str] = []
    tasks = fold_tasks(FoldWork(divided.scans, divided.crops, tiny, trained))
    run_here(tasks, lambda stage, _: stages.append(stage), lambda: None)
    rows = list(csv.DictReader(trained.predictions.read_text().splitlines()))
    assert [row["case"] for row in rows] == list(HELD_OUT)
    assert [int(row["outcome"]) for row in rows] == [0, 1, 0]
    assert all(0 <= float(row[arm]) <= 1 for row in rows for arm in ARMS)
    assert stages[-3:] == ["segment held-out scans", "sample held-out masks", "predict"]
    pairs = Cohort.open(trained.pairs)
    assert [case.name for case in pairs] == list(HELD_OUT)
    assert all(case.synthetic for case in pairs)
    assert len(list((trained.crops / "crops").glob("*.json"))) == len(HELD_OUT)


def test_a_patient_in_whom_neoseg_finds_nothing_is_predicted_and_counted(
    divided: Divided,
    trained: FoldPaths,
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three held-out patients one shows no tumour, one not even a liver."""

    def predict(_: object, cases: Cohort, folder: Path, keep: object) -> None:
        for case in cases:
            _, mask = case.read_with_mask()
            found = mask.data.copy()
            if case.name == HELD_OUT[0]:
                found[found == 4] = 1
            elif case.name == HELD_OUT[1]:
                found[:] = 0
            mask.with_data(found).write(folder / f"{case.name}.nii.gz")

    monkeypatch.setattr("neonet3d.study.fold.predict_cases", predict)
    paths = FoldPaths(tmp_path / "fold-0")
    shutil.copytree(trained.root, paths.root)
    for stage in (paths.masks, paths.crops, paths.predictions.parent):
        shutil.rmtree(stage, ignore_errors=True)
    run_fold(divided.scans, divided.crops, tiny, paths)
    rows = list(csv.DictReader(paths.predictions.read_text().splitlines()))
    assert [row["case"] for row in rows] == list(HELD_OUT)
    assert all(0 <= float(row[arm]) <= 1 for row in rows for arm in ARMS)
    assert count_without_tumour(paths.crops) == 2
    # Without a liver there is no reference intensity: the training cases' prevalence.
    training = divided.crops.training.outcomes
    assert [float(rows[1][arm]) for arm in ARMS] == pytest.approx([training.mean()] * 3, abs=1e-6)


def test_a_table_speaks_where_no_liver_was_found(
    scans: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_module, "cut_without_liver", lambda cohort: [cohort.cases[0].name])

    @dataclass
    class Says:
        reads_scans: bool
        prevalence: float = 0.5

        def predict(self, cohort: Cohort, *, allow_no_tumour: bool) -> np.ndarray:
            return np.full(len(cohort), 0.9)

    first = scans.cases[0].name
    assert _probabilities(cast(Classifier, Says(reads_scans=True)), scans)[first] == 0.5
    assert _probabilities(cast(Classifier, Says(reads_scans=False)), scans)[first] == 0.9
