from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.nifti import read_label_names
from neonet3d.cohort.volume import corner_distance_mm, read_label_map
from neonet3d.engine.artefact import read_card


def test_training_says_what_it_trained_on_and_is_not_repeated(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], trained: Any
) -> None:
    weights = trained.segmenter / "model.safetensors"
    stamp = weights.stat().st_mtime_ns
    command = ("segment", "train", scans.root, trained.segmenter, "--fold", "0/2")
    found = run(*command, *tiny_options, "--json").json()
    assert found["model"] == str(trained.segmenter)
    assert (found["fold"], found["training_cases"]) == ("fold-0", 4)
    assert found["plan"] == read_card(trained.segmenter).parts["plan"]
    assert weights.stat().st_mtime_ns == stamp
    assert len(read_card(trained.segmenter, kind="Segmenter").training_cases) == 4


def test_a_plan_can_be_changed_and_given_back(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    command = ("segment", "plan", scans.root, "--fold", "0/2", *tiny_options)
    printed = run(*command).stdout
    assert printed.startswith("# 4 scans: median voxel 6 x 6 x 10 mm")
    sizes = yaml.safe_load(printed)["segmenter"]
    assert (sizes["network"], sizes["patch"]) == ("unet", [24, 16, 8])
    (tmp_path / "plan.yaml").write_text(printed.replace("[24, 16, 8]", "[32, 32, 16]"))
    preset = ("--preset", "demo", "--config", tmp_path / "plan.yaml")
    found = run("segment", "plan", scans.root, "--fold", "0/2", *preset, "--json").json()
    assert found["segmenter"] == sizes | {"patch": [32, 32, 16]}
    assert found["fingerprint"]["n"] == 4


def test_another_training_does_not_overwrite_a_model(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], trained: Any
) -> None:
    done = run("segment", "train", scans.root, trained.segmenter, "--fold", "1/2", *tiny_options)
    assert done.status == 2
    assert "is not empty" in done.stderr
    assert read_card(trained.segmenter).fold == "fold-0"


def test_held_out_scans_are_segmented_on_their_own_grid(
    run: Callable[..., Any], scans: Cohort, trained: Any, tmp_path: Path
) -> None:
    command = ("segment", "predict", trained.segmenter, scans.root, tmp_path / "masks")
    found = run(*command, "--fold", "0/2", "--json").json()
    assert found["cases"] == 4
    assert set(found["dice"]) <= {"liver", "tumour"}
    assert all(interval["n"] <= 4 for interval in found["dice"].values())
    for name in ("metrics.csv", "summary.csv"):
        assert (tmp_path / "masks" / name).is_file()
    written = sorted((tmp_path / "masks").glob("*.nii.gz"))
    assert len(written) == 4
    assert json.loads((tmp_path / "masks" / "labels.json").read_text()) == {
        "background": 0,
        "liver": 1,
        "tumour": 2,
    }
    for path in written:
        image = scans[path.name.removesuffix(".nii.gz")].read_image()
        mask = read_label_map(path, n_classes=3)
        assert read_label_names(path) == {1: "liver", 2: "tumour"}
        assert mask.shape == image.shape
        assert corner_distance_mm(mask, image) < 1e-3


def test_a_folder_that_was_used_is_not_written_into(
    run: Callable[..., Any], scans: Cohort, trained: Any, tmp_path: Path
) -> None:
    """The tables of one fold would stand beside the masks of two."""
    command = ("segment", "predict", trained.segmenter, scans.root, tmp_path / "masks", "--fold")
    assert run(*command, "0/2").status == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()}
    done = run(*command, "1/2")
    assert (done.status, done.stdout) == (2, "")
    assert "of other masks. Choose another folder" in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()} == before


def test_a_segmenter_is_not_judged_on_its_training_scans(
    run: Callable[..., Any], scans: Cohort, trained: Any, tmp_path: Path
) -> None:
    """All are segmented; the Dice is that of the four which did not train it."""
    command = ("segment", "predict", trained.segmenter, scans.root)
    everyone = run(*command, tmp_path / "all", "--json").json()
    held_out = run(*command, tmp_path / "fold", "--fold", "0/2", "--json").json()
    assert (everyone["cases"], held_out["cases"]) == (8, 4)
    assert len(list((tmp_path / "all").glob("*.nii.gz"))) == 8
    assert everyone["dice"] == held_out["dice"]
    assert "4 of them trained the model" in run(*command, tmp_path / "said").stdout


def test_a_model_of_other_classes_is_not_scored_and_says_so(
    run: Callable[..., Any], scans: Cohort, trained: Any, tmp_path: Path
) -> None:
    shutil.copytree(scans.root, tmp_path / "scans")
    path = tmp_path / "scans" / "dataset.json"
    path.write_text(path.read_text().replace('"tumour"', '"cyst"'))
    command = ("segment", "predict", trained.segmenter, tmp_path / "scans", tmp_path / "masks")
    assert "None was scored: the model's classes are" in run(*command).stdout


def test_masks_of_a_folder_are_evaluated(
    run: Callable[..., Any], scans: Cohort, tmp_path: Path
) -> None:
    """All masks as they are, but for one whose tumour was missed."""
    masks = tmp_path / "masks"
    for index, case in enumerate(scans):
        mask = case.read_mask()
        assert mask is not None
        missed = mask.with_data(np.minimum(mask.data, 1)) if index == 0 else mask
        missed.write(masks / f"{case.name}.nii.gz")
    found = run("segment", "evaluate", scans.root, masks, "--json").json()
    assert (found["scored"], found["without_reference"], found["tolerance_mm"]) == (8, 0, 2)
    assert found["dice"]["tumour"]["value"] == pytest.approx(7 / 8)
    assert found["hd95_mm"]["tumour"]["value"] == 0
    assert found["hd95_mm"]["tumour"]["infinite"] == 1
    assert found["lesion_sensitivity"]["tumour"]["n_positive"] == 7
    assert found["false_findings"]["tumour"]["value"] == 0
    rows = list(csv.DictReader((masks / "metrics.csv").read_text().splitlines()))
    assert [row["tumour_hd95_mm"] for row in rows] == ["inf", *["0"] * 7]
    assert (masks / "summary.csv").is_file()

    command = ("segment", "evaluate", scans.root, masks, "--out", tmp_path / "elsewhere")
    said = run(*command, "--tolerance-mm", 3, "--fold", "0/2").stdout
    assert "surface Dice at 3 mm" in said
    assert "4 scans of 4 patients" in said
    rows = list(csv.DictReader((tmp_path / "elsewhere" / "metrics.csv").read_text().splitlines()))
    assert len(rows) == 4
    said = run(*command).stdout
    assert "(1 infinite)" in said
    assert "Tumours: 7 of 8 found" in said
    assert "Findings that are no tumour: 0" in said


def test_what_cannot_be_evaluated_is_a_sentence(
    run: Callable[..., Any], scans: Cohort, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = run("segment", "evaluate", scans.root, tmp_path / "empty")
    assert done.status == 2
    assert "lacks the masks of 8 of 8 cases" in done.stderr
    shutil.copytree(scans.root, tmp_path / "scans")
    shutil.rmtree(tmp_path / "scans" / "labelsTr")
    done = run("segment", "evaluate", tmp_path / "scans", tmp_path / "empty")
    assert done.status == 2
    assert "None of the 8 cases" in done.stderr


def test_an_ensemble_is_not_judged_on_what_trained_any_member(
    run: Callable[..., Any],
    scans: Cohort,
    tiny_options: tuple[str, ...],
    trained: Any,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    assert run("segment", "train", scans.root, other, "--fold", "1/2", *tiny_options).status == 0
    command = ("segment", "predict", trained.segmenter, scans.root, tmp_path / "out")
    found = run(*command, "--ensemble", other, "--probabilities", "--json").json()
    assert found["training_cases_not_judged"] == 8
    assert found["dice"] == {}
    written = {path.name for path in (tmp_path / "out" / "probabilities").iterdir()}
    assert written == {f"{c.name}_{name}.nii.gz" for c in scans for name in ("liver", "tumour")}


@pytest.mark.parametrize("predicted", [False, True])
def test_cropping_writes_a_cohort_of_patches(
    predicted: bool,
    run: Callable[..., Any],
    scans: Cohort,
    tiny_options: tuple[str, ...],
    trained: Any,
    tmp_path: Path,
) -> None:
    segmenter = ("--segmenter", trained.segmenter) if predicted else ()
    command = ("crop", scans.root, tmp_path / "crops", *segmenter, *tiny_options, "--json")
    found = run(*command).json()
    assert (found["cohort"], found["cases"]) == (str(tmp_path / "crops"), 8)
    crops = Cohort.open(tmp_path / "crops")
    np.testing.assert_array_equal(crops.outcomes, scans.outcomes)
    for case in crops:
        image, mask = case.read_with_mask()
        assert image.shape == mask.shape == (24, 16, 8)
    records = [json.loads(p.read_text()) for p in (crops.root / "crops").glob("*.json")]
    assert len(records) == 8
    fallbacks = sorted(record["case"] for record in records if record["fallback"])
    assert found["without_tumour"] == fallbacks
    if not predicted:
        assert fallbacks == []


def test_every_lesion_gets_a_patch(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    command = ("crop", scans.root, tmp_path / "crops", "--all-lesions", *tiny_options)
    assert run(*command, "--json").json()["cases"] == 8
    crops = Cohort.open(tmp_path / "crops")
    assert [case.name for case in crops] == [f"{case.name}-1" for case in scans]
    assert [case.participant for case in crops] == [case.participant for case in scans]


def test_patches_without_tumour_are_counted(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    writer = CohortWriter(tmp_path / "scans", scans.schema, outcome_name="pni", channel="HBP")
    for case in scans.cases[:2]:
        image, mask = case.read_with_mask()
        healthy = mask.with_data(np.minimum(mask.data, 1))
        writer.add(case.name, image, mask if case.name == "case_0" else healthy, outcome=0)
    writer.finish()
    done = run("crop", tmp_path / "scans", tmp_path / "crops", *tiny_options)
    assert "1 of them show no tumour, but the liver" in done.stdout
    assert "the first is case_1" in done.stdout


def test_a_mask_of_a_patch_goes_back_to_its_scan(
    run: Callable[..., Any], scans: Cohort, trained: Any, tmp_path: Path
) -> None:
    drawn = trained.crops / "labelsTr" / "case_3.nii.gz"
    out = tmp_path / "back.nii.gz"
    found = run("place-back", trained.crops, "case_3", drawn, out, "--json").json()
    image, mask = scans["case_3"].read_with_mask()
    back = read_label_map(out, n_classes=3)
    assert found == {"mask": str(out), "shape": list(image.shape), "voxels": (back.data > 0).sum()}
    assert corner_distance_mm(back, image) < 1e-3
    tumour, reference = back.data == 2, mask.data == 2
    assert 2 * (tumour & reference).sum() / (tumour.sum() + reference.sum()) > 0.95
    again = run("place-back", trained.crops, "case_3", drawn, out)
    assert (again.status, again.stderr.count("\n")) == (2, 1)
