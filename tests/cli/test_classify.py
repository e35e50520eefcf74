from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neonet3d.classification.predict import Classifier
from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.engine.artefact import read_card
from neonet3d.metrics.discrimination import auc
from neonet3d.report.said import Said


@pytest.fixture(scope="module")
def classifier(
    run: Callable[..., Any],
    tiny_options: tuple[str, ...],
    trained: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """PattenNet of fold 0 of 2, on the generator's encoder."""
    out = tmp_path_factory.mktemp("classifier")
    encoder = ("--encoder", trained.generator / "autoencoder", "--fold", "0/2")
    found = run("classify", "train", trained.crops, out, *encoder, *tiny_options, "--json").json()
    assert (found["fold"], found["training_cases"]) == ("fold-0", 4)
    assert found["model"] == str(out / "patten")
    assert 0 <= found["test_auc"] <= 1
    assert found["test"]["n"] == 4
    assert not (out / "autoencoder").exists()
    return out / "patten"


def test_held_out_cases_get_a_probability(
    classifier: Path, run: Callable[..., Any], trained: Any
) -> None:
    crops = Cohort.open(trained.crops)
    found = run("classify", "predict", classifier, trained.crops, "--fold", "0/2", "--json").json()
    said = Said.model_validate(found)  # what 'neonet3d dicom' reads
    assert said.model.weights_sha256 == read_card(classifier).weights_sha256
    assert set(said.certainty) == set(said.probability)
    assert found["outcome"] == "pni"
    held_out = [case for case in crops if case.name in found["probability"]]
    assert len(held_out) == len(found["probability"]) == 4
    seen = set(read_card(classifier).training_cases)
    assert not seen & {case.digest() for case in held_out}
    assert all(0 <= p <= 1 for p in found["probability"].values())
    printed = run("classify", "predict", classifier, trained.crops, "--fold", "0/2")
    assert "probability of pni" in printed.stdout
    assert printed.stdout.splitlines()[-1].endswith("not a medical device.")


def test_a_page_shows_the_held_out_cases(
    classifier: Path, run: Callable[..., Any], trained: Any, tmp_path: Path
) -> None:
    page, fold = tmp_path / "page.html", ("--fold", "0/2")
    command = ("classify", "predict", classifier, trained.crops, *fold)
    found = run(*command, "--page", page, "--generator", trained.generator, "--json").json()
    assert found["page"] == str(page)
    html = page.read_text("utf-8")
    crops = Cohort.open(trained.crops)
    numbers = [i for i, case in enumerate(crops, 1) if case.name in found["probability"]]
    assert [int(n) for n in re.findall(r'<section id="case-(\d+)"', html)] == numbers
    assert not any(case.name in html for case in crops)
    assert "Generator: 1 less 0" in html
    done = run(*command, "--generator", trained.generator)
    assert (done.status, "Say where to write it: --page" in done.stderr) == (2, True)


def test_explanations_lie_on_the_scans(
    classifier: Path,
    run: Callable[..., Any],
    tiny_options: tuple[str, ...],
    trained: Any,
    tmp_path: Path,
) -> None:
    out, options = tmp_path / "maps", ("--fold", "0/2", *tiny_options, "--json")
    command = ("classify", "explain", classifier, trained.crops, out)
    found = run(*command, "--generator", trained.generator, *options).json()
    kinds = ["attention", "grad_cam", "occlusion", "counterfactual"]
    assert (found["cases"], found["kinds"]) == (4, kinds)
    crops = Cohort.open(trained.crops)
    held_out = [c for c in crops if (out / f"{c.name}_attention.nii.gz").is_file()]
    assert len(held_out) == 4
    assert len(list(out.iterdir())) == 4 * len(kinds)
    for case in held_out:
        image = nib.load(case.image_path)
        for kind in kinds:
            mapped = nib.load(out / f"{case.name}_{kind}.nii.gz")
            assert mapped.shape == image.shape
            np.testing.assert_allclose(mapped.affine, image.affine, atol=1e-4)
            assert np.isfinite(mapped.get_fdata()).all()
    done = run(*command, *options)
    assert (done.status, "is not an empty folder" in done.stderr) == (2, True)


def test_an_encoder_is_trained_where_none_is_given(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    command = ("classify", "train", trained.crops, tmp_path / "out", *tiny_options, "--json")
    found = run(*command).json()
    assert (found["fold"], found["training_cases"]) == ("all", 8)
    assert "test_auc" not in found
    parent = read_card(tmp_path / "out" / "autoencoder")
    card = read_card(tmp_path / "out" / "patten")
    prior = read_card(tmp_path / "out" / "anatomy")
    assert card.parents == {
        "autoencoder": parent.weights_sha256,
        "anatomy": prior.weights_sha256,
    }


def test_the_test_auc_is_that_of_the_official_split(
    run: Callable[..., Any],
    make_cohort: Callable[..., Cohort],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    cohort = make_cohort([0, 1] * 4, splits=["train"] * 4 + ["test"] * 4)
    out = tmp_path / "out"
    found = run("classify", "train", cohort.root, out, *tiny_options, "--json").json()
    assert (found["fold"], found["training_cases"]) == ("official-split", 4)
    predicted = run("classify", "predict", out / "patten", cohort.root, "--json").json()
    probability = predicted["probability"]
    test = cohort.subset(case for case in cohort if case.split == "test")
    assert list(probability) == [case.name for case in test]
    assert found["test"]["n"] == 4
    scores = Classifier.load(out / "patten").predict(test)
    assert found["test_auc"] == auc(test.outcomes, scores)
    assert [probability[case.name] for case in test] == scores.round(4).tolist()


def test_an_encoder_of_another_fold_is_refused(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    encoder = ("--encoder", trained.generator / "autoencoder", "--fold", "1/2")
    done = run("classify", "train", trained.crops, tmp_path / "out", *encoder, *tiny_options)
    assert done.status == 2
    assert "held-out cases trained this Autoencoder" in done.stderr


@pytest.mark.parametrize("model", ["baseline", "radiomics"])
def test_a_reading_of_another_fold_is_refused(
    model: str, run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    """The intensities that an encoder brings were fitted on its training cases."""
    words = ("--encoder", trained.generator / "autoencoder", "--fold", "1/2", "--model", model)
    done = run("classify", "train", trained.crops, tmp_path / "out", *words, *tiny_options)
    assert done.status == 2
    assert "held-out cases trained this Autoencoder" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_prediction_of_training_cases_says_so(
    run: Callable[..., Any], tiny_options: tuple[str, ...], trained: Any, tmp_path: Path
) -> None:
    words = ("--fold", "0/2", "--model", "radiomics", *tiny_options)
    run("classify", "train", trained.crops, tmp_path / "out", *words)
    model = tmp_path / "out" / "radiomics"
    everyone = run("classify", "predict", model, trained.crops, "--json").json()
    held_out = run("classify", "predict", model, trained.crops, "--fold", "0/2", "--json").json()
    assert (everyone["training_cases_among_them"], held_out["training_cases_among_them"]) == (4, 0)
    said = run("classify", "predict", model, trained.crops).stdout
    assert "4 of these cases trained the model: this is no test of it." in said


def test_a_test_split_of_one_class_has_no_auc(
    run: Callable[..., Any],
    make_cohort: Callable[..., Cohort],
    tiny_options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    cohort = make_cohort([0, 1] * 3 + [1, 1], splits=["train"] * 6 + ["test"] * 2)
    words = ("--model", "radiomics", *tiny_options)
    done = run("classify", "train", cohort.root, tmp_path / "out", *words)
    assert done.status == 0
    assert "No test AUC: the held-out cases do not have outcomes of both classes." in done.stdout


def test_whole_scans_are_refused_with_the_mend(
    classifier: Path,
    run: Callable[..., Any],
    tmp_path: Path,
    scans: Cohort,
    tiny_options: tuple[str, ...],
) -> None:
    small = ("--set", "roi.shape=[24, 8, 8]", "--set", "roi.spacing_mm=[3, 3, 5]")
    run("crop", scans.root, tmp_path / "small", *tiny_options, *small)
    out = tmp_path / "out"
    run("classify", "train", tmp_path / "small", out, *tiny_options)
    done = run("classify", "predict", out / "patten", scans.root)
    assert done.status == 2
    assert "'neonet3d crop'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_patches_without_tumour_are_refused_before_anything_is_trained(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    writer = CohortWriter(tmp_path / "scans", scans.schema, outcome_name="pni", channel="HBP")
    for case in scans:
        image, mask = case.read_with_mask()
        healthy = mask.with_data(np.minimum(mask.data, 1))
        writer.add(
            case.name, image, healthy if case.name == "case_2" else mask, outcome=case.outcome
        )
    writer.finish()
    run("crop", tmp_path / "scans", tmp_path / "crops", *tiny_options)
    command = ("classify", "train", tmp_path / "crops", tmp_path / "out", *tiny_options)
    done = run(*command)
    assert done.status == 2
    assert "1 cases show no tumour (the first is case_2)" in done.stderr
    assert not (tmp_path / "out").exists()
    assert run(*command, "--allow-no-tumour").status == 0
    predict = ("classify", "predict", tmp_path / "out" / "patten", tmp_path / "crops")
    assert run(*predict).status == 2
    assert len(run(*predict, "--allow-no-tumour", "--json").json()["probability"]) == 8


@pytest.mark.parametrize("model", ["baseline", "radiomics"])
def test_baselines_need_no_encoder(
    run: Callable[..., Any],
    tiny_options: tuple[str, ...],
    trained: Any,
    tmp_path: Path,
    model: str,
) -> None:
    words = ("classify", "train", trained.crops, tmp_path / "out", "--model", model, *tiny_options)
    small = ("--set", "baseline.width=0.25", "--set", "baseline.loop.steps=2")
    found = run(*words, *small, "--fold", "0/2", "--json").json()
    assert found["model"] == str(tmp_path / "out" / model)
    assert found["test"]["n"] == 4
    assert [path.name for path in (tmp_path / "out").iterdir()] == [model]


def test_a_named_column_predicts_without_a_look_at_the_scans(
    run: Callable[..., Any], tiny_options: tuple[str, ...], scans: Cohort, tmp_path: Path
) -> None:
    writer = CohortWriter(tmp_path / "scans", scans.schema, outcome_name="pni", channel="HBP")
    for case in scans:
        age = {"age": str(50 + 20 * (case.outcome or 0))}
        writer.add(case.name, *case.read_with_mask(), outcome=case.outcome, extra=age)
    writer.finish()
    words = ("classify", "train", tmp_path / "scans", tmp_path / "out", "--model", "clinical")
    refused = run(*words, *tiny_options)
    assert refused.status == 2
    assert "No clinical variables are named" in refused.stderr
    run(*words, *tiny_options, "--set", "clinical.columns=[age]")
    predicted = run("classify", "predict", tmp_path / "out" / "clinical", writer.root, "--json")
    probability = predicted.json()["probability"]
    assert auc(scans.outcomes, np.array([probability[case.name] for case in scans])) == 1
