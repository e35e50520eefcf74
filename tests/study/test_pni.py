from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold, stratified_folds
from neonet3d.cohort.splits import read_splits
from neonet3d.config import ArmConfig, Config, load_config
from neonet3d.engine import loop
from neonet3d.engine.cluster import local_cluster
from neonet3d.engine.executor import Task
from neonet3d.engine.log import stage_seconds
from neonet3d.engine.run import RunFolder
from neonet3d.errors import InputError, RunError
from neonet3d.report.case_pages import write_case_pages
from neonet3d.segmentation.crop_record import cut_without_liver
from neonet3d.study.fold import FoldWork
from neonet3d.study.pni import run_pni_study
from neonet3d.study.results import StudyResults
from neonet3d.types import LabelSchema

VOLATILE = {
    "manifest.json",
    "log.jsonl",  # the run's own; every training's must be the same
    "results.json",
    "report.html",
    "config.yaml",
    "splits.json",
    ".lock",
}


def stages(run: Path) -> dict[str, bytes]:
    """Every file of every stage; what says when and how often it was started is left out."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file()
        and str(path.relative_to(run)) not in VOLATILE
        and path.parent.name != ".locks"
    }


def times(run: Path) -> dict[str, int]:
    return {name: (run / name).stat().st_mtime_ns for name in stages(run)}


def study(cohort: Cohort, path: Path, config: Config) -> StudyResults:
    with RunFolder.open(path, config, study="pni", command="test") as run:
        return run_pni_study(cohort, run, title="Spheres")


@pytest.fixture
def without_summary(finished: tuple[Path, StudyResults], monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of the finished run, for tests that look at the stages alone."""
    monkeypatch.setattr("neonet3d.study.pni.summarise_study", lambda *_, **__: finished[1])


def test_a_run_ends_with_results_and_a_report(
    finished: tuple[Path, StudyResults], tiny: Config
) -> None:
    run, results = finished
    names = {path.name for path in run.iterdir()}
    assert names == VOLATILE | {"crops", "fold-0", "fold-1", ".locks"}
    assert StudyResults.read(run).cases == results.cases
    page = (run / "report.html").read_text()
    assert "Spheres" in page
    assert all(arm.title in page for arm in results.arms)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["command"] == "neonet3d study pni"
    assert len(manifest["starts"]) == 1
    assert load_config("demo", file=run / "config.yaml") == tiny


def test_a_page_of_the_held_out_cases_of_each_fold(
    finished: tuple[Path, StudyResults], tmp_path: Path
) -> None:
    run = shutil.copytree(finished[0], tmp_path / "run")
    pages = write_case_pages(run)
    assert [page.name for page in pages] == ["cases-fold-0.html", "cases-fold-1.html"]
    texts = [page.read_text("utf-8") for page in pages]
    held_out = read_splits(run / "splits.json", Cohort.open(run / "crops"))
    numbers = {case.name: i for i, case in enumerate(Cohort.open(run / "crops"), start=1)}
    for text, fold in zip(texts, held_out, strict=True):
        shown = set(re.findall(r"Case (\d+)", text))
        lost = cut_without_liver(Cohort.open(run / fold.name / "crops"))
        expected = {numbers[case.name] for case in fold.held_out if case.name not in lost}
        assert shown == {str(number) for number in expected}
        assert "Generator: 1 less 0" in text
        assert all(case.name not in text for case in fold.held_out)


def test_cases_of_a_study_without_a_pattennet_have_no_pages(
    finished: tuple[Path, StudyResults], tmp_path: Path
) -> None:
    run = shutil.copytree(finished[0], tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["study"]["arms"] = [{"model": "resnet18", "data": "real"}]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="no PattenNet among its honest arms"):
        write_case_pages(run)


def test_nothing_half_done_is_left(finished: tuple[Path, StudyResults]) -> None:
    leftovers = [
        path
        for path in finished[0].rglob("*")
        if path.name.endswith(".tmp") or path.name.startswith(".state")
    ]
    assert leftovers == []


def test_running_again_does_nothing(
    scans: Cohort,
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_summary: None,
) -> None:
    study(scans, tmp_path / "run", tiny)
    before, content = times(tmp_path / "run"), stages(tmp_path / "run")

    def never(*_: object, **__: object) -> float:
        raise AssertionError("a training loop was run")

    for module in ("segmentation", "generation", "classification"):
        monkeypatch.setattr(f"neonet3d.{module}.train.train_loop", never)
    study(scans, tmp_path / "run", tiny)
    assert times(tmp_path / "run") == before
    assert stages(tmp_path / "run") == content


def test_another_classifier_setting_retrains_the_classifiers_alone(
    scans: Cohort, tiny: Config, tmp_path: Path, without_summary: None
) -> None:
    study(scans, tmp_path / "run", tiny)
    before = times(tmp_path / "run")
    other = tiny.model_copy(
        update={"classifier": tiny.classifier.model_copy(update={"dropout": 0.0})}
    )
    study(scans, tmp_path / "run", other)
    after = times(tmp_path / "run")
    changed = {name.split("/", 1)[1] for name in before if before[name] != after[name]}
    assert {name.rpartition("/")[0] for name in changed} == {
        "classifiers/patten-both_classes",
        "classifiers/patten-real",
        "predictions",
    }


@pytest.mark.parametrize(
    ("stage", "steps"),
    [("segmenter", 1), ("unet", 1), ("unet", 2), ("patten-both_classes", 1)],
)
def test_a_run_that_stops_in_a_loop_goes_on_to_the_same_bytes(
    stage: str,
    steps: int,
    finished: tuple[Path, StudyResults],
    scans: Cohort,
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without_summary: None,
) -> None:
    """Stopped after the first or the last of two steps, with its state on disk."""
    save, saved = loop._save, 0

    def save_and_stop(path: Path, *rest: Any) -> None:
        nonlocal saved
        save(path, *rest)
        if path.parent.name == stage:
            saved += 1
            if saved == steps:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        patched.setattr(loop, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            study(scans, tmp_path / "run", tiny)
    assert len(list((tmp_path / "run").rglob(".state.safetensors"))) == 1
    study(scans, tmp_path / "run", tiny)
    expected, found = stages(finished[0]), stages(tmp_path / "run")
    assert set(found) == set(expected)
    differing = [name for name in expected if expected[name] != found[name]]
    assert differing == []


KILLED_START = """
import os, signal, sys
from pathlib import Path
from neonet3d.cohort import folder, volume
from neonet3d.engine import artefact, loop, run
target, save, write = Path(sys.argv.pop(1)), loop._save, volume.write_atomically

def dies_after_saving(path, *rest):
    save(path, *rest)
    if path.parent == target:
        os.kill(os.getpid(), signal.SIGKILL)

def dies_before_writing(path, payload, **options):
    if path == target:
        path.with_name("." + path.name + ".1.tmp").write_bytes(payload[: len(payload) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, payload, **options)

loop.CHECKPOINT_SECONDS = 0.0
loop._save = dies_after_saving
for module in (volume, artefact, run):
    module.write_atomically = dies_before_writing
from neonet3d.cli import main
main()
"""


def start(arguments: list[str], *, die_at: Path | None) -> int:
    program = ["-c", KILLED_START, str(die_at)] if die_at else ["-m", "neonet3d"]
    done = subprocess.run(
        [sys.executable, *program, *arguments], capture_output=True, timeout=300, check=False
    )
    if done.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(done.stderr.decode())
    return done.returncode


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(
    finished: tuple[Path, StudyResults],
    scans: Cohort,
    tiny_overrides: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """SIGKILL in a loop, while weights are written, and while a stage's mark is written."""
    run = tmp_path / "run"
    options = [part for override in tiny_overrides for part in ("--set", override)]
    arguments = ["study", "pni", str(scans.root), str(run), "--preset", "demo", *options]
    for die_at in (
        run / "fold-0" / "generator" / "unet",
        run / "fold-0" / "generator" / "controlnet" / "model.safetensors",
        run / "fold-0" / "data" / "both_classes" / ".done",
        run / "fold-1" / "classifiers" / "resnet18-real" / "model.json",
    ):
        assert start(arguments, die_at=die_at) == -signal.SIGKILL
    assert start(arguments, die_at=None) == 0
    assert (run / "report.html").is_file()
    expected, found = stages(finished[0]), stages(run)
    debris = {name for name in found if name.endswith(".tmp")}
    assert set(found) - debris == set(expected)
    differing = [name for name in expected if expected[name] != found[name]]
    assert differing == []
    assert len(json.loads((run / "manifest.json").read_text())["starts"]) == 5


@pytest.mark.slow
def test_a_killed_demo_goes_on_to_the_same_bytes(
    tiny_overrides: tuple[str, ...], tmp_path: Path
) -> None:
    """From the phantom to the report; no synthetic cases, whose gate two steps cannot pass."""
    phantom = ["phantom.n=8", "phantom.spacing_mm=[6, 6, 10]", "balance.synthetic_share=0"]
    wanted = [*tiny_overrides, *phantom]
    options = [part for override in wanted for part in ("--set", override)]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    die_at = killed / "fold-0" / "segmenter"
    assert start(["demo", "--out", str(killed), *options], die_at=die_at) == -signal.SIGKILL
    assert not (killed / "results.json").exists()
    for run in (killed, whole):
        assert start(["demo", "--out", str(run), *options], die_at=None) == 0
        assert StudyResults.read(run).ceiling_auc is not None
    one, two = stages(killed), stages(whole)
    assert set(one) == set(two)
    differing = [name for name in one if one[name] != two[name]]
    assert differing == []


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch in this process on n threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("default")  # an error in Dask's own thread would hang
def test_a_worker_that_dies_changes_nothing(
    scans: Cohort, tiny: Config, tmp_path: Path, without_summary: None
) -> None:
    """Two workers, one of which is killed in a training, against one thing after the other."""
    pytest.importorskip("distributed", reason="the [cluster] extra is not installed")
    spread, deaths = tmp_path / "spread", []
    with (
        local_cluster(2) as executor,
        RunFolder.open(spread, tiny, study="pni", command="test") as run,
    ):

        def kill() -> None:
            """The worker that trains the first generator, once it does."""
            deadline, dead = time.monotonic() + 60, None
            pids = executor.client.run(os.getpid)
            while dead is None:
                assert time.monotonic() < deadline
                for worker, keys in executor.client.processing().items():
                    training = list(spread.glob("fold-0/generator/autoencoder/*"))
                    if training and any("generator" in str(key) for key in keys):
                        dead = pids[worker]
                time.sleep(0.01)
            os.kill(dead, signal.SIGKILL)
            deaths.append(dead)

        killer = threading.Thread(target=kill)
        killer.start()
        run_pni_study(scans, run, title="Spheres", execute=executor)
        killer.join()
        assert deaths[0] not in executor.client.run(os.getpid).values()
    with threads(max(1, (os.cpu_count() or 1) // 2)):
        study(scans, tmp_path / "whole", tiny)
    expected, found = stages(tmp_path / "whole"), stages(spread)
    assert set(found) == set(expected)
    assert [name for name in expected if expected[name] != found[name]] == []
    recorded = stage_seconds(spread / "log.jsonl")
    assert {"train segmenter", "train flow U-Net", "train classifiers", "predict"} <= set(recorded)


def test_two_runs_in_one_folder_are_refused(scans: Cohort, tiny: Config, tmp_path: Path) -> None:
    with (
        RunFolder.open(tmp_path / "run", tiny, study="pni", command="first"),
        pytest.raises(InputError, match="Another run works in"),
        RunFolder.open(tmp_path / "run", tiny, study="pni", command="second"),
    ):
        pass
    # The lock is the kernel's: it is gone with the run that held it.
    with RunFolder.open(tmp_path / "run", tiny, study="pni", command="third") as run:
        assert run.manifest()["command"] == "third"


def test_two_processes_in_one_folder_are_refused(tiny: Config, tmp_path: Path) -> None:
    """The lock holds between processes and its end is that of the process."""
    held = (
        "import fcntl, sys, time; stream = open(sys.argv[1], 'w');"
        "fcntl.flock(stream, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    )
    (tmp_path / "run").mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path / "run" / ".lock")], stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        (tmp_path / "run" / "manifest.json").write_text('{"starts": [], "config_hash": ""}')
        with (
            pytest.raises(InputError, match="Another run works in"),
            RunFolder.open(tmp_path / "run", tiny, study="pni", command="second"),
        ):
            pass
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        other.stdout.close()
    with RunFolder.open(tmp_path / "run", tiny, study="pni", command="second"):
        pass


def test_a_folder_with_other_work_is_refused(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(InputError, match="is not empty and not a run"),
        RunFolder.open(tmp_path, tiny, study="pni", command="x"),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_cases_without_masks_are_refused(scans: Cohort, tiny: Config, tmp_path: Path) -> None:
    bare = replace(scans.cases[3], mask_path=None)
    cohort = replace(scans, cases=(*scans.cases[:3], bare, *scans.cases[4:]))
    with pytest.raises(InputError, match=r"1 cases of .* have no mask \(the first is case_3\)"):
        study(cohort, tmp_path / "run", tiny)


def test_one_scan_under_two_patients_is_refused_before_anything_is_trained(
    scans: Cohort, tiny: Config, tmp_path: Path
) -> None:
    root = shutil.copytree(scans.root, tmp_path / "scans")
    shutil.copy(scans["case_1"].image_path, root / "imagesTr" / "case_6_0000.nii.gz")
    with pytest.raises(InputError, match=r"case_1 and case_6 of .* one scan under two patients"):
        study(Cohort.open(root), tmp_path / "run", tiny)
    assert not (tmp_path / "run" / "crops").exists()


def test_several_scans_of_a_patient_are_refused(
    scans: Cohort, tiny: Config, tmp_path: Path
) -> None:
    twice = replace(scans.cases[3], participant=scans.cases[1].participant)
    cohort = replace(scans, cases=(*scans.cases[:3], twice, *scans.cases[4:]))
    with pytest.raises(InputError, match=r"1 patients of .* have several scans"):
        study(cohort, tmp_path / "run", tiny)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [("clinical", "No clinical variables are named"), ("radiomics", "Radiomics are those")],
)
def test_what_a_model_lacks_is_said_before_anything_is_trained(
    model: str, sentence: str, scans: Cohort, tiny: Config, tmp_path: Path
) -> None:
    arms = (ArmConfig.model_validate({"model": model, "data": "real"}),)
    config = tiny.model_copy(update={"study": tiny.study.model_copy(update={"arms": arms})})
    organs = replace(scans, schema=LabelSchema(("background", "liver", "a", "b", "c")))
    with pytest.raises(InputError, match=sentence):
        study(scans if model == "clinical" else organs, tmp_path / "run", config)
    assert not (tmp_path / "run" / "splits.json").exists()


def test_a_tumour_by_another_name_is_refused(scans: Cohort, tiny: Config, tmp_path: Path) -> None:
    names = tuple("Tumor" if name == "tumour" else name for name in scans.schema.names)
    with pytest.raises(InputError, match=r"have 'Tumor', which.*Rename 'Tumor' to 'tumour'"):
        study(replace(scans, schema=LabelSchema(names)), tmp_path / "run", tiny)


def test_reference_masks_without_tumour_are_refused(
    scans: Cohort, tiny: Config, tmp_path: Path
) -> None:
    writer = CohortWriter(tmp_path / "scans", scans.schema, outcome_name="pni", channel="HBP")
    for case in scans:
        image, mask = case.read_with_mask()
        data = mask.data.copy()
        if case.name == "case_3":
            data[data == 4] = 1
        writer.add(case.name, image, mask.with_data(data), outcome=case.outcome)
    with pytest.raises(InputError, match=r"1 cases have no tumour .*the first is case_3.*Remove"):
        study(writer.finish(), tmp_path / "run", tiny)
    assert not (tmp_path / "run" / "fold-0").exists()


def test_a_run_says_its_splits_and_takes_them_again(
    finished: tuple[Path, StudyResults],
    scans: Cohort,
    tiny: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the run wrote is read as the user's own, and it gives the same folds."""
    run, results = finished
    folds = read_splits(run / "splits.json", scans)
    assert folds == stratified_folds(scans, 2, seed=tiny.seed)
    held_out = [case.name for fold in folds for case in fold.held_out]
    assert sorted(held_out) == sorted(results.cases)

    seen: list[Fold] = []

    def see(work: FoldWork, after: object) -> list[Task]:
        seen.append(work.fold)
        return []

    monkeypatch.setattr("neonet3d.study.pni.fold_tasks", see)
    monkeypatch.setattr("neonet3d.study.pni.summarise_study", lambda *_, **__: results)
    with RunFolder.open(tmp_path / "run", tiny, study="pni", command="test") as other:
        run_pni_study(scans, other, title="Spheres", folds=folds[::-1])
    assert seen == folds[::-1]
    assert read_splits(tmp_path / "run" / "splits.json", scans)[0].held_out == folds[1].held_out


def test_splits_whose_predictions_cannot_be_pooled_are_refused(
    scans: Cohort, tiny: Config, tmp_path: Path
) -> None:
    first, second = stratified_folds(scans, 2, seed=0)
    negatives = scans.subset(case for case in first.held_out if case.outcome == 0)
    for folds, sentence in (
        ([first, second, first], "is held out in 2 folds of --splits"),
        ([replace(first, held_out=negatives), second], "holds out only cases with pni = 0"),
    ):
        with (
            RunFolder.open(tmp_path / "run", tiny, study="pni", command="test") as run,
            pytest.raises(InputError, match=sentence),
        ):
            run_pni_study(scans, run, title="Spheres", folds=folds)
    assert not (tmp_path / "run" / "splits.json").exists()


def test_crops_are_made_anew_when_dataset_json_is_mended(
    scans: Cohort, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No digest of a case knows which of two organs is the tumour."""
    keys: list[str] = []

    def once(folder: Path, key: str, build: object) -> Path:
        keys.append(key)
        raise KeyboardInterrupt

    monkeypatch.setattr("neonet3d.study.pni.once", once)
    background, *others = scans.schema.names
    swapped = replace(scans, schema=LabelSchema((background, *reversed(others))))
    for cohort in (scans, swapped, scans):
        with pytest.raises(KeyboardInterrupt):
            study(cohort, tmp_path / "run", tiny)
    assert keys[0] == keys[2] != keys[1]


def test_too_few_patients_for_the_folds_are_refused(
    scans: Cohort, tiny: Config, tmp_path: Path
) -> None:
    five = tiny.model_copy(update={"study": tiny.study.model_copy(update={"folds": 5})})
    with pytest.raises(InputError, match="fewer than 5 folds"):
        study(scans, tmp_path / "run", five)


def test_a_gate_that_nothing_passes_stops_the_run_with_a_sentence(
    scans: Cohort, tiny: Config, tmp_path: Path
) -> None:
    """What was trained is kept, and the error says what to change."""
    strict = tiny.balance.model_copy(update={"adherence_quantile": 1.0, "attempts": 1})
    with pytest.raises(RunError, match=r"refused 1 times.*balance\.adherence_quantile"):
        study(scans, tmp_path / "run", tiny.model_copy(update={"balance": strict}))
    assert (tmp_path / "run" / "fold-0" / "generator" / "unet" / "model.json").is_file()
    assert not (tmp_path / "run" / "fold-0" / "data" / "both_classes" / ".done").exists()
