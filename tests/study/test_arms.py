from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from neonet3d.classification import train
from neonet3d.classification.patten_model import build_patten
from neonet3d.classification.train import train_patten
from neonet3d.classification.training_set import loaded_start, with_start
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import load_patches
from neonet3d.config import ArmConfig, Config, load_config
from neonet3d.engine.artefact import read_card
from neonet3d.engine.executor import run_here
from neonet3d.engine.run import RunFolder
from neonet3d.errors import InputError
from neonet3d.generation.sources import patients_of
from neonet3d.report.html import write_report
from neonet3d.segmentation.tlcr import crop_cohort
from neonet3d.study.arms import Arm, study_arms, with_leaky_twin
from neonet3d.study.fold import FoldWork, fold_tasks, training_tasks
from neonet3d.study.paths import FoldPaths
from neonet3d.study.pni import run_pni_study
from neonet3d.study.training_sets import training_set

HELD_OUT = ("case_2", "case_5", "case_6")


def arm(**settings: object) -> Arm:
    return Arm(ArmConfig.model_validate({"model": "patten", "data": "real"} | settings))


@pytest.mark.parametrize(
    ("settings", "key", "title"),
    [
        ({}, "patten-real", "PattenNet, real cases"),
        (
            {"data": "both_classes", "share": 0.5, "masks": "reference"},
            "patten-both_classes-0.5-reference",
            "PattenNet, real + synthetic of both classes, 1:1 (50% of the larger synthetic), "
            "judged on reference masks",
        ),
        (
            {"model": "vit", "drawing": "weighted"},
            "vit-real-weighted",
            "Vision transformer (3D), real cases, class weights",
        ),
    ],
)
def test_an_arm_has_a_key_and_a_title(settings: dict[str, object], key: str, title: str) -> None:
    made = arm(**settings)
    assert made.key == key
    assert made.title == title


def test_what_is_judged_on_other_masks_is_trained_once() -> None:
    predicted, reference = arm(), arm(masks="reference")
    assert predicted.key != reference.key
    assert predicted.classifier == reference.classifier


def test_an_arm_trains_its_own_network_with_its_own_drawing() -> None:
    config = load_config("demo")
    weighted = arm(drawing="weighted").config(config)
    assert weighted.classifier.drawing == "weighted"
    assert weighted.baseline == config.baseline
    natural = config.classifier.model_copy(update={"drawing": "natural"})
    assert arm().config(config.model_copy(update={"classifier": natural})).classifier == natural
    vit = arm(model="vit").config(config)
    assert (vit.baseline.network, vit.baseline.width) == ("vit", 1.0)
    own = arm(model=config.baseline.network).config(config)
    assert own.baseline == config.baseline


def test_arms_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="only both_classes has a share"):
        arm(share=0.5)
    with pytest.raises(ValidationError, match="no weights to go on from"):
        arm(model="radiomics", data="pretrain")
    with pytest.raises(ValidationError, match="which only real cases have"):
        arm(model="clinical", data="classic")
    with pytest.raises(ValidationError, match="neither encoder nor generator"):
        arm(model="clinical", leaky=True)
    with pytest.raises(ValidationError, match="draws nothing"):
        arm(model="clinical", drawing="natural")
    config = load_config("demo", overrides=["study.arms=[{model: vit, data: real}]"])
    twice = config.study.model_copy(update={"arms": config.study.arms * 2})
    with pytest.raises(InputError, match="vit-real twice"):
        study_arms(config.model_copy(update={"study": twice}))


@pytest.fixture(scope="module")
def divided(scans: Cohort, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> list[Fold]:
    """Whole scans and crops."""
    crops = crop_cohort(scans, tmp_path_factory.mktemp("arms") / "crops", tiny.roi)
    return [
        Fold(
            "fold-0",
            part.subset(case for case in part if case.name not in HELD_OUT),
            part.subset(case for case in part if case.name in HELD_OUT),
        )
        for part in (scans, crops)
    ]


@pytest.fixture(scope="module")
def every(tiny: Config) -> Config:
    """Every kind of training set, and every kind of classifier that goes on from another."""
    arms = [
        {"model": "patten", "data": "both_classes"},
        {"model": "patten", "data": "both_classes", "share": 0.6},
        {"model": "patten", "data": "rare_class", "drawing": "natural"},
        {"model": "patten", "data": "pretrain"},
        {"model": "patten", "data": "synthetic"},
        {"model": "resnet18", "data": "pretrain"},
        {"model": "radiomics", "data": "classic", "drawing": "natural"},
        {"model": "patten", "data": "real", "drawing": "weighted"},
        {"model": "patten", "data": "real", "drawing": "weighted", "masks": "reference"},
    ]
    study = tiny.study.model_copy(update={"arms": tuple(ArmConfig.model_validate(a) for a in arms)})
    return tiny.model_copy(update={"study": study})


@pytest.fixture(scope="module")
def run(divided: list[Fold], every: Config, tmp_path_factory: pytest.TempPathFactory) -> FoldPaths:
    paths = FoldPaths(tmp_path_factory.mktemp("every") / "fold-0")
    run_here(fold_tasks(FoldWork(*divided, every, paths)), lambda *_: None, lambda: None)
    return paths


def test_every_arm_predicts_every_held_out_case(run: FoldPaths, every: Config) -> None:
    head, *rows = run.predictions.read_text().splitlines()
    assert head.split(",")[2:] == [one.key for one in study_arms(every)]
    assert sorted(row.split(",")[0] for row in rows) == sorted(HELD_OUT)
    values = np.array([[float(x) for x in row.split(",")[2:]] for row in rows])
    assert ((values > 0) & (values < 1)).all()
    assert not np.allclose(values[:, -1], values[:, -2])  # other masks, other patches


def test_training_sets_are_made_once_and_of_training_cases(
    run: FoldPaths, divided: list[Fold], every: Config
) -> None:
    _, crops = divided
    made = {path.name for path in run.data("").iterdir()}
    assert made == {"both_classes", "both_classes-0.6", "rare_class", "synthetic", "classic"}
    held_out = {case.digest()[:16] for case in crops.held_out}
    for name in made:
        cohort = Cohort.open(run.data(name))
        assert not held_out & {case.digest()[:16] for case in cohort}
        assert not {case.participant for case in crops.held_out} & set(patients_of(cohort))
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.is_file()}
    run_here(training_tasks(FoldWork(*divided, every, run)), lambda *_: None, lambda: None)
    after = {path: path.stat().st_mtime_ns for path in run.root.rglob("*") if path.is_file()}
    assert before == after


def test_copies_are_augmented_and_keep_their_patient(
    run: FoldPaths, divided: list[Fold], every: Config
) -> None:
    _, crops = divided
    cohort = training_set(arm(data="classic"), crops, every, run)
    copies = [case for case in cohort if case.synthetic]
    assert len(cohort) - len(copies) == len(crops.training)
    assert np.bincount(cohort.outcomes).tolist() == [len(cohort) // 2] * 2
    assert set(patients_of(cohort)) == {case.participant for case in crops.training}
    card = read_card(run.generator / "autoencoder")
    images = load_patches(cohort, *card.reading).images.flatten(1)
    apart = (images[:, None] - images[None]).abs().mean(2)
    apart.fill_diagonal_(1)
    assert float(apart.min()) > 0.005  # no two are the same


def test_what_is_pretrained_goes_on_from_there(run: FoldPaths) -> None:
    for model in ("patten", "resnet18"):
        first = read_card(run.classifier(f"{model}-pretrain-first"))
        card = read_card(run.classifier(f"{model}-pretrain"))
        assert card.parents["start"] == first.weights_sha256
        assert len(card.training_cases) == 5
        assert not set(card.training_cases) & set(first.training_cases)


def test_a_start_of_other_settings_is_refused(
    run: FoldPaths, divided: list[Fold], every: Config, tmp_path: Path
) -> None:
    wider = every.classifier.model_copy(update={"channels": 16})
    with pytest.raises(InputError, match="other settings, patches or parts"):
        train_patten(
            divided[1],
            run.generator / "autoencoder",
            every.model_copy(update={"classifier": wider}),
            tmp_path / "patten",
            start=run.classifier("patten-pretrain-first"),
            allow_no_tumour=True,
        )


def test_a_start_that_saw_the_held_out_patients_is_refused(
    run: FoldPaths, divided: list[Fold]
) -> None:
    start = run.classifier("patten-real-weighted")
    card, crops = read_card(start), divided[1]
    assert with_start(card, start, crops).parents["start"] == card.weights_sha256
    with pytest.raises(InputError, match="held-out cases trained this PattenNet"):
        with_start(card, start, Fold("other way round", crops.held_out, crops.training))


def test_a_start_on_another_encoder_is_refused(run: FoldPaths) -> None:
    start = run.classifier("patten-real-weighted")
    card = read_card(start)
    loaded_start(start, card, build_patten)
    other = card.model_copy(update={"parents": card.parents | {"autoencoder": "0" * 64}})
    with pytest.raises(InputError, match="other settings, patches or parts"):
        loaded_start(start, other, build_patten)


def test_an_encoder_that_was_trained_along_is_taken_over(
    run: FoldPaths,
    divided: list[Fold],
    every: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = {"encoder": "trainable", "features": "maps", "readings": ("deep",)}
    section = every.classifier.model_copy(update=changed)
    config = every.model_copy(update={"classifier": section})

    def trained(name: str, start: Path | None) -> dict[str, torch.Tensor]:
        encoder = run.generator / "autoencoder"
        train_patten(divided[1], encoder, config, tmp_path / name, start=start)
        weights = load_file(tmp_path / name / "model.safetensors")
        return {key: of for key, of in weights.items() if key.startswith("encoder.")}

    first = trained("first", None)
    monkeypatch.setattr(train, "train_loop", lambda *_, **__: 0.0)
    fresh, second = trained("fresh", None), trained("second", tmp_path / "first")
    assert any(not torch.equal(first[key], fresh[key]) for key in first)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_leaky_twin_of_a_table_is_refused() -> None:
    config = load_config("demo")
    arms = (ArmConfig.model_validate({"model": "clinical", "data": "real"}),)
    study = config.study.model_copy(update={"arms": arms})
    with pytest.raises(InputError, match="neither encoder nor generator"):
        with_leaky_twin(config.model_copy(update={"study": study}))


def test_one_fold_is_no_cross_validation() -> None:
    with pytest.raises(InputError, match="folds"):
        load_config("demo", overrides=["study.folds=1"])


def test_a_leaky_twin_saw_everyone_and_the_honest_arms_did_not(
    scans: Cohort, tiny: Config, tmp_path: Path
) -> None:
    one = tiny.study.model_copy(update={"arms": tiny.study.arms[:1]})
    config = with_leaky_twin(tiny.model_copy(update={"study": one}))
    with RunFolder.open(tmp_path / "run", config, study="pni", command="test") as run:
        results = run_pni_study(scans, run, title="Spheres")
    write_report(tmp_path / "run")
    honest, leaky = results.arms
    assert leaky.key == f"{honest.key}-leaky"
    everyone = read_card(tmp_path / "run" / "leaky" / "generator" / "autoencoder")
    assert len(everyone.training_cases) == len(scans)
    for fold in ("fold-0", "fold-1"):
        paths = FoldPaths(tmp_path / "run" / fold)
        own = read_card(paths.generator / "autoencoder")
        assert len(own.training_cases) == len(scans) // 2
        parents = [read_card(paths.classifier(arm.key)).parents for arm in results.arms]
        assert parents[0]["autoencoder"] == own.weights_sha256
        assert parents[1]["autoencoder"] == everyone.weights_sha256
        for cohort in (paths.data("both_classes"), paths.data("both_classes-leaky")):
            held_out = {
                n for n, f in zip(results.cases, results.folds, strict=True) if f == int(fold[-1])
            }
            assert not held_out & {case.name for case in Cohort.open(cohort)}
    assert (honest.leaky, leaky.leaky) == (False, True)
    html = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert f"that of “{honest.title}”" in html
    with pytest.raises(InputError, match=r"first of study\.arms is leaky"):
        study_arms(
            config.model_copy(
                update={"study": one.model_copy(update={"arms": config.study.arms[1:]})}
            )
        )
    assert "What a leak would have pretended" in html
    assert "LEAKY" in html
