from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.engine.artefact import read_card
from neonet3d.generation.sources import drawn_on

PLANES = {"axial", "coronal", "sagittal"}


def test_training_says_what_it_made(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any
) -> None:
    command = ("generate", "train", trained.crops, trained.generator, "--fold", "0/2")
    found = run(*command, *tiny_options, "--json").json()
    assert (found["fold"], found["training_cases"]) == ("fold-0", 4)
    assert found["shape"] == [24, 16, 8]
    np.testing.assert_allclose(found["spacing_mm"], [6, 6, 10])
    assert found["autoencoder"]["training_psnr_db"] > 0
    copying = found["copying"]
    assert (copying["n_training"], copying["n_held_out"], copying["n_synthetic"]) == (4, 4, 0)
    assert copying["membership"]["auc"]["n"] == 8
    assert copying["sentence"].startswith("Membership by loss: AUC")
    assert copying["sentence"] in run(*command, *tiny_options).stdout


@pytest.mark.parametrize(
    ("options", "outcomes"),
    [
        ((), None),
        (("--label", "pni=1"), [1] * 4),
        (("--label", "pni=0", "--n", "6"), [0] * 6),
    ],
)
def test_volumes_are_drawn_with_their_masks(
    options: tuple[str, ...],
    outcomes: list[int] | None,
    run: Callable[..., Any],
    tiny_options: tuple[str, ...],
    trained: Any,
    tmp_path: Path,
) -> None:
    command = ("generate", "sample", trained.generator, tmp_path / "out", "--masks", trained.crops)
    found = run(*command, "--fold", "0/2", "--steps", 1, *options, *tiny_options, "--json").json()
    drawn, crops = Cohort.open(tmp_path / "out"), Cohort.open(trained.crops)
    assert (found["cohort"], found["cases"]) == (str(tmp_path / "out"), len(drawn))
    copying = found["copying"]  # of the cohort of the masks, which holds the training cases too
    assert copying["n_synthetic"] == len(drawn)
    assert copying["n_training"] + copying["n_held_out"] == len(crops)
    assert all(case.synthetic for case in drawn)
    sources = [crops[case.name.removesuffix("-2")] for case in drawn]
    expected = [case.outcome for case in sources] if outcomes is None else outcomes
    assert drawn.outcomes.tolist() == expected
    for case, source in zip(drawn, sources, strict=True):
        np.testing.assert_array_equal(
            case.read_with_mask()[1].data, source.read_with_mask()[1].data
        )


def test_pairs_that_no_patient_had(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    command = ("generate", "sample", trained.generator, tmp_path / "out", "--new-masks")
    options = ("--n", 3, "--label", "pni=1", "--steps", 1, *tiny_options)
    found = run(*command, *options, "--training", trained.crops, "--json").json()
    assert (found["cohort"], found["cases"]) == (str(tmp_path / "out"), 3)
    assert found["redrawn"] >= 0
    assert found["copying"]["n_synthetic"] == 3
    novelty = found["novelty"]
    assert novelty["largest"] == max(novelty["nearest_training_dice"])
    assert len(novelty["nearest_training_dice"]) == 3
    assert novelty["between_patients"]["largest"] > 0.9  # these patients have one anatomy
    drawn = Cohort.open(tmp_path / "out")
    assert [case.name for case in drawn] == ["new_0000", "new_0001", "new_0002"]
    assert drawn.outcomes.tolist() == [1, 1, 1]
    weights = read_card(trained.generator / "masks" / "flow").weights_sha256
    table = pd.read_csv(tmp_path / "out" / "participants.tsv", sep="\t", dtype=str)
    assert set(table["mask_generator"]) == {weights[:16]}
    assert "source_mask" not in table  # they start from noise alone
    assert not found["calibrated_for_sampler"]  # another number of steps
    assert set(table["draw_seed"]) == {"0"}
    tumours = [(case.read_with_mask()[1].data == 2).sum() for case in drawn]
    assert min(tumours) > 0


def test_pairs_that_start_from_patients_name_them(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    """So that the audit does not take the patient they began with for one they copied."""
    command = ("generate", "sample", trained.generator, tmp_path / "out", "--new-masks")
    options = ("--n", 8, *tiny_options, "--set", "masks.start=0.3", "--training", trained.crops)
    assert run(*command, *options, "--json").json()["calibrated_for_sampler"]
    drawn, crops = Cohort.open(tmp_path / "out"), Cohort.open(trained.crops)
    table = pd.read_csv(tmp_path / "out" / "participants.tsv", sep="\t", dtype=str)
    assert set(table["source_mask"]) <= {case.digest()[:16] for case in crops}
    assert drawn_on(drawn, crops).sum(1).tolist() == [1] * 8
    scored = run("generate", "evaluate", trained.crops, tmp_path / "out", "--json")
    assert len(scored.json()["fidelity"]) == 3


def test_new_masks_of_one_volume(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    mask = Cohort.open(trained.crops).cases[0].read_with_mask()[1]
    voxels = int((mask.data == 2).sum())
    command = ("generate", "sample", trained.generator, tmp_path / "out", "--new-masks")
    options = ("--n", 1, "--steps", 1, "--tumour-volume", voxels * mask.voxel_volume_mm3)
    done = run(*command, *options, *tiny_options)
    assert done.status == 0, done.stderr
    assert "Give --training to measure how new they are." in done.stdout
    assert "Not audited for copying" in done.stdout
    found = Cohort.open(tmp_path / "out").cases[0].read_with_mask()[1]
    assert (found.data == 2).sum() * found.voxel_volume_mm3 == pytest.approx(
        voxels * mask.voxel_volume_mm3, rel=0.02
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "Say --masks COHORT or --new-masks, and not both."),
        (("--masks", "x", "--new-masks"), "and not both"),
        (("--new-masks", "--training", "y"), "There is no folder y"),
        (("--new-masks", "--move-tumour"), "belong to --masks"),
        (("--new-masks", "--fold", "0/2"), "belong to --masks"),
        (("--new-masks",), "New masks start from those of training"),
        (
            ("--new-masks", "--set", "masks.start=1", "--tumour-volume", 1),
            "those of training have",
        ),
    ],
)
def test_masks_come_from_one_of_the_two(
    options: tuple[Any, ...], words: str, run: Callable[..., Any], trained: Any, tmp_path: Path
) -> None:
    done = run("generate", "sample", trained.generator, tmp_path / "out", *options)
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("pni", "is not NAME=0 or NAME=1"),
        ("pni=2", "is not NAME=0 or NAME=1"),
        ("grade=1", "knows the outcome 'pni', not 'grade'. Say --label pni=1."),
    ],
)
def test_a_label_that_the_generator_does_not_know_is_refused(
    label: str, words: str, run: Callable[..., Any], trained: Any, tmp_path: Path
) -> None:
    command = ("generate", "sample", trained.generator, tmp_path / "out", "--masks", trained.crops)
    done = run(*command, "--label", label)
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_fold_is_balanced_one_to_one(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    models = ("--model", trained.generator, "--segmenter", trained.segmenter, "--fold", "0/2")
    command = ("generate", "balance", trained.crops, tmp_path / "out", *models, *tiny_options)
    found = run(*command, "--json").json()
    assert found["real"] == {"negative": 2, "positive": 2}
    assert found["synthetic"] == {"negative": 1, "positive": 1}
    assert found["drawn"] - found["rejected"] == 2
    assert np.bincount(Cohort.open(tmp_path / "out").outcomes).tolist() == [3, 3]
    record = json.loads((tmp_path / "out" / "balance.json").read_text())
    assert record == {key: value for key, value in found.items() if key != "cohort"}
    assert run(*command).status == 2  # nothing that stands is overwritten


def test_models_of_another_fold_do_not_balance(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    """Held-out patients would come into the training set as what was drawn after them."""
    models = ("--model", trained.generator, "--segmenter", trained.segmenter, "--fold", "1/2")
    done = run("generate", "balance", trained.crops, tmp_path / "out", *models, *tiny_options)
    assert done.status == 2
    assert "held-out cases trained this" in done.stderr
    assert not (tmp_path / "out").exists()


def test_synthetic_volumes_are_compared_with_real_ones(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    drawn = tmp_path / "drawn"
    masks = ("--masks", trained.crops, "--fold", "0/2")
    run("generate", "sample", trained.generator, drawn, *masks, *tiny_options)
    command = ("generate", "evaluate", trained.crops, drawn, "--fold", "0/2")
    models = ("--segmenter", trained.segmenter, "--model", trained.generator)
    found = run(*command, *models, "--json").json()
    assert {score["plane"] for score in found["fidelity"]} == PLANES
    assert set(found["adherence"]) <= {"liver", "tumour"}
    for measure in ("two_sample", "two_sample_slices", "ms_ssim", "ms_ssim_of_real"):
        assert found[measure]["low"] <= found[measure]["value"] <= found[measure]["high"]
    assert (found["two_sample"]["n"], found["two_sample"]["n_positive"]) == (8, 4)
    assert "tumour" in found["two_sample_classes"]
    assert found["manifold"] is None  # four cases have no third neighbour in half of them
    assert len(found["spectrum"]["frequency"]) == len(found["spectrum"]["decibels"])
    copying = found["copying"]
    assert (copying["n_training"], copying["n_held_out"], copying["n_synthetic"]) == (4, 4, 4)
    # 4 training patches against 3 held-out ones that did not give the mask.
    assert copying["expected_share"] == pytest.approx(4 / 7)
    printed = run(*command)
    assert printed.status == 0
    assert all(plane in printed.stdout for plane in PLANES)
    assert all(row in printed.stdout for row in ("two-sample AUC", "MS-SSIM", "spectrum"))
    assert "Membership" not in printed.stdout


def test_an_audit_against_another_fold_is_refused(
    run: Callable[..., Any], trained: Any, tmp_path: Path
) -> None:
    command = ("generate", "evaluate", trained.crops, trained.crops, "--fold", "1/2")
    done = run(*command, "--model", trained.generator)
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert "did not train this generator" in done.stderr


def test_too_few_cases_are_refused(run: Callable[..., Any], trained: Any, tmp_path: Path) -> None:
    splits = tmp_path / "splits.json"
    names = [case.name for case in Cohort.open(trained.crops)]
    splits.write_text(json.dumps([{"train": names[3:], "val": names[:3]}]))
    command = ("generate", "evaluate", trained.crops, trained.crops, "--splits", splits)
    done = run(*command, "--fold", "0")
    assert (done.status, done.stderr.count("\n")) == (2, 1)
    assert "3 real and 8 synthetic cases" in done.stderr


def test_a_dry_run_forecasts_and_writes_nothing(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    out = tmp_path / "generator"
    command = ("generate", "train", trained.crops, out, "--fold", "0/2", "--dry-run")
    found = run(*command, *tiny_options, "--json").json()
    assert [stage["name"] for stage in found["stages"]] == [
        "autoencoder",
        "flow U-Net",
        "ControlNet",
        "detail decoder",
        "mask autoencoder",
        "mask flow",
    ]
    steps = sum(stage["steps"] * stage["seconds_per_step"] for stage in found["stages"])
    assert found["seconds"] == pytest.approx(steps)
    assert (found["shape"], found["cases"]) == ([24, 16, 8], 4)
    assert "minutes" in run(*command, *tiny_options).stdout
    assert not out.exists()
