"""Exit status and error sentences."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.errors import RunError

NO_COHORT = "nowhere"


def refused(done: Any, *words: str) -> None:
    """Exit status 2, one sentence on stderr, nothing on stdout."""
    assert done.status == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("neonet3d: ")
    assert done.stderr.endswith(".\n")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chort"], ["No such command 'chort'", "--help"]),
        (["cohort", "phantm"], ["No such command 'phantm'", "Did you mean 'phantom'? '--help'"]),
        (["cohort", "phantom", "out", "--sed", "3"], ["No such option: --sed", "--seed"]),
        (["cohort", "phantom", "out", "--n", "many"], ["'--n'"]),
        (["cohort", "phantom", "out", "--n", "0"], ["'--n'"]),
        (["cohort", "phantom"], ["Missing argument"]),
        (["cohort", "check", NO_COHORT], ["There is no folder nowhere", "neonet3d cohort import"]),
        (["crop", NO_COHORT, "out"], ["There is no folder nowhere"]),
        (["segment", "train", NO_COHORT, "out"], ["There is no folder nowhere"]),
        (["generate", "train", NO_COHORT, "out"], ["There is no folder nowhere"]),
        (["classify", "train", NO_COHORT, "out"], ["There is no folder nowhere"]),
        (["study", "pni", NO_COHORT, "out"], ["There is no folder nowhere"]),
        (["segment", "predict", NO_COHORT, "in", "out"], ["nowhere holds no model.json"]),
        (["classify", "predict", NO_COHORT, "in"], ["nowhere holds no model.json"]),
        (["cohort", "import", NO_COHORT, "out"], [NO_COHORT]),
        (["report", NO_COHORT], [NO_COHORT]),
        (["info", "--preset", "huge"], ["There is no preset 'huge'", "demo, cpu, gpu"]),
        (["info", "--set", "seed"], ["--set 'seed' has no '='"]),
        (["info", "--set", "unet.lop.steps=3"], ["unet.lop", "there is no such key"]),
        (["info", "--set", "unet.loop.steps=-1"], ["unet.loop.steps", "greater than 0"]),
        (["info", "--set", "roi.shape=[1, 2"], ["is not YAML"]),
        (["info", "--config", "absent.yaml"], ["no configuration file absent.yaml"]),
    ],
)
def test_bad_usage_and_bad_input_are_one_sentence(
    arguments: list[str],
    words: list[str],
    run: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(*arguments), *words)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("choice", ["5/5", "1", "a/b", "half"])
def test_a_malformed_fold_is_refused(
    choice: str, run: Callable[..., Any], scans: Cohort, tmp_path: Path
) -> None:
    done = run("generate", "train", scans.root, tmp_path / "out", "--fold", choice)
    refused(done, f"--fold '{choice}' is not K/N")
    assert not any(tmp_path.iterdir())


def test_a_cohort_without_labels_is_refused_before_anything_is_made(
    run: Callable[..., Any], make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    bare = make_cohort([None, None, None])
    for command in (["classify", "train"], ["study", "pni"]):
        refused(run(*command, bare.root, tmp_path / "out"), "3 of 3 cases", "participants.tsv")
        assert not (tmp_path / "out").exists()


def test_a_group_without_a_command_prints_its_help(run: Callable[..., Any]) -> None:
    for group in ([], ["cohort"], ["generate"]):
        done = run(*group)
        assert done.status == 2
        assert "Usage" in done.stdout
        assert done.stderr == ""


@pytest.mark.parametrize(
    ("raised", "status", "sentence"),
    [
        (RunError("The loss became nan."), 1, "The loss became nan."),
        (OSError(28, "No space left on device", "x.nii"), 1, "No space left on device: x.nii."),
        (OSError(28, "No space left on device"), 1, "No space left on device."),
        (KeyboardInterrupt(), 130, "Stopped."),
    ],
)
def test_what_ends_a_run_has_its_own_status(
    raised: BaseException,
    status: int,
    sentence: str,
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("neonet3d.cohort.cohort.Cohort.survey", fail)
    done = run("cohort", "check", "somewhere")
    assert done.status == status
    assert done.stderr.strip() == f"neonet3d: {sentence}"
    training = run("generate", "train", "somewhere", "out")
    goes_on = " What is done is kept; the same command goes on from there."
    kept = "" if isinstance(raised, RunError) else goes_on
    assert training.stderr.strip() == f"neonet3d: {sentence}{kept}"


def test_a_scheduler_is_answered_as_ctrl_c_is(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "neonet3d.cohort.cohort.Cohort.survey", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )
    try:
        done = run("cohort", "check", "somewhere")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.status == 130
    assert done.stderr.strip() == "neonet3d: Stopped."


def test_a_defect_of_ours_shows_its_traceback(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("neonet3d.cohort.cohort.Cohort.survey", fail)
    with pytest.raises(ZeroDivisionError):
        run("cohort", "check", "somewhere")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_process_itself_ends_with_status_and_sentence() -> None:
    done = python("-m", "neonet3d", "cohort", "check", NO_COHORT)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("neonet3d: There is no folder nowhere")


def test_help_waits_for_no_library() -> None:
    """``--help`` of the program and of a command that trains: neither torch nor numpy."""
    probe = (
        "import sys; from neonet3d.cli import main; sys.argv = sys.argv[:1] + {arguments}\n"
        "try: main()\n"
        "except SystemExit as done: assert done.code == 0\n"
        "heavy = set(sys.modules) & {{'torch', 'numpy', 'monai', 'pandas', 'matplotlib'}}\n"
        "assert not heavy, heavy"
    )
    for arguments in (["--help"], ["generate", "train", "--help"], ["study", "pni", "--help"]):
        done = python("-c", probe.format(arguments=arguments))
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout
