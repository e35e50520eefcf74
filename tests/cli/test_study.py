from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.config import load_config
from neonet3d.study.arms import study_arms
from neonet3d.study.results import StudyResults


def test_a_study_says_where_its_report_is(tiny_study: tuple[Path, Any]) -> None:
    out, ended = tiny_study
    found = ended.json()
    assert found["report"] == str(out / "report.html")
    assert found["results"] == str(out / "results.json")
    assert Path(found["report"]).is_file()
    results = StudyResults.read(out)
    assert found["auc"] == {arm.key: arm.auc.value for arm in results.arms}
    arms = study_arms(load_config("demo"))
    assert set(found["auc"]) == {arm.key for arm in arms}


def test_the_manifest_says_how_it_was_run(tiny_study: tuple[Path, Any], scans: Cohort) -> None:
    manifest = json.loads((tiny_study[0] / "manifest.json").read_text())
    assert manifest["command"].startswith(f"neonet3d study pni {scans.root}")
    assert manifest["wall_seconds"] > 0
    assert manifest["peak_memory_gib"] > 0
    assert manifest["cohort"] == str(scans.root)


def test_the_same_command_again_prints_a_table(
    tiny_study: tuple[Path, Any],
    run: Callable[..., Any],
    scans: Cohort,
    tiny_options: tuple[str, ...],
) -> None:
    again = run("study", "pni", scans.root, tiny_study[0], *tiny_options)
    assert again.status == 0
    for title in (
        *(arm.title for arm in study_arms(load_config("demo"))),
        "liver",
        "tumour",
        "axial",
    ):
        assert title in again.stdout
    assert again.stdout.splitlines()[-1] == f"Report: {tiny_study[0] / 'report.html'}"


def test_its_own_splits_give_the_same_run(
    tiny_study: tuple[Path, Any],
    run: Callable[..., Any],
    scans: Cohort,
    tiny_options: tuple[str, ...],
) -> None:
    out, first = tiny_study
    splits = ("--splits", out / "splits.json")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("model.json")}
    again = run("study", "pni", scans.root, out, *splits, *tiny_options, "--json")
    assert again.json() == first.json()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.json")} == before


@pytest.mark.parametrize(
    "command",
    [
        ("study", "pni"),
        ("segment", "train", "--fold", "0"),
        ("generate", "train", "--fold", "0"),
        ("classify", "train", "--fold", "0"),
    ],
    ids=" ".join,
)
def test_splits_that_cannot_be_meant_stop_a_command_before_it_writes(
    command: tuple[str, ...],
    run: Callable[..., Any],
    scans: Cohort,
    tiny_options: tuple[str, ...],
    tmp_path: Path,
) -> None:
    splits = tmp_path / "splits_final.json"
    splits.write_text('[{"train": ["case_0", "case_1"], "val": ["case_1"]}]')
    out = tmp_path / "out"
    name, options = command[:2], command[2:]
    ended = run(*name, scans.root, out, *options, "--splits", splits, *tiny_options)
    assert (ended.status, ended.stdout) == (2, "")
    assert "'case_1' stand in 'train' and in 'val'" in ended.stderr
    assert not out.exists()


def test_the_report_is_written_again(tiny_study: tuple[Path, Any], run: Callable[..., Any]) -> None:
    page = tiny_study[0] / "report.html"
    before = page.read_text()
    page.unlink()
    printed = run("report", tiny_study[0])
    assert printed.stdout.splitlines() == [
        f"Report: {page}",
        f"Volumes in 3D: {tiny_study[0] / 'viewer.html'}",
        "Model card and checklists: model-card.md, claim-2024.md, tripod-ai.md",
    ]
    assert len(page.read_text()) == pytest.approx(len(before), rel=0.01)


def test_a_folder_without_a_run_has_no_report(run: Callable[..., Any], tmp_path: Path) -> None:
    ended = run("report", tmp_path)
    assert ended.status == 2
    assert ended.stderr.count("\n") == 1


def test_a_run_that_another_process_holds_is_refused(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    import fcntl

    out = tmp_path / "run"
    out.mkdir()
    (out / "manifest.json").write_text('{"starts": [], "config_hash": ""}')
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = run("study", "pni", scans.root, out, *tiny_options)
    assert ended.status == 2
    assert "Another run works in" in ended.stderr


@pytest.mark.slow
def test_the_demo_goes_the_whole_way(
    run: Callable[..., Any], tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    """On a coarse phantom, without synthetic cases, whose gate two steps cannot pass."""
    phantom = ("phantom.n=8", "phantom.spacing_mm=[6, 6, 10]", "balance.synthetic_share=0")
    wanted = [part for override in phantom for part in ("--set", override)]
    found = run("demo", "--out", tmp_path / "run", *tiny_options[2:], *wanted, "--json").json()
    assert Path(found["report"]).is_file()
    results = StudyResults.read(tmp_path / "run")
    assert results.ceiling_auc is not None
    assert len(results.cases) == 8


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--workers", "10000"), "10000 workers cannot share"),
        (("--workers", "2", "--scheduler", "tcp://127.0.0.1:9"), "Give one of them"),
    ],
)
def test_workers_that_cannot_be_leave_no_run(
    words: tuple[str, ...], sentence: str, scans: Any, run: Callable[..., Any], tmp_path: Path
) -> None:
    done = run("study", "pni", scans.root, tmp_path / "run", "--preset", "demo", *words)
    assert done.status == 2
    assert sentence in done.stderr
    assert not (tmp_path / "run").exists()
