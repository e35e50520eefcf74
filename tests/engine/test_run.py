from __future__ import annotations

import errno
import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from neonet3d.config import Config, load_config
from neonet3d.engine.run import RESULTS, STATE, RunFolder, command_line, once, untimed
from neonet3d.errors import InputError


@pytest.fixture
def config() -> Config:
    return load_config("demo", seed=6)


def test_the_folder_says_how_it_was_made(tmp_path: Path, config: Config) -> None:
    with RunFolder.open(tmp_path / "run", config, study="pni", command="neonet3d demo") as run:
        run.update_manifest(cases=7)
        with run.timed("train autoencoder"):
            pass
    written = yaml.safe_load((run.path / "config.yaml").read_text())
    assert Config.model_validate(written) == config
    manifest = run.manifest()
    assert (manifest["command"], manifest["cases"]) == ("neonet3d demo", 7)
    assert {"package", "python", "torch", "device", "config_hash"} <= manifest.keys()
    record = json.loads((run.path / "log.jsonl").read_text())
    assert record["stage"] == "train autoencoder"
    assert record["seconds"] >= 0


def test_a_run_goes_on(tmp_path: Path, config: Config) -> None:
    with RunFolder.open(tmp_path / "run", config, study="pni", command="first") as run:
        run.update_manifest(cases=7)
        first = run.manifest()
    other = config.model_copy(update={"seed": 7})
    with RunFolder.open(tmp_path / "run", other, study="pni", command="second") as run:
        manifest = run.manifest()
    assert manifest["command"] == "second"
    assert manifest["cases"] == 7
    assert len(manifest["starts"]) == 2  # type: ignore[arg-type]
    assert manifest["config_hash"] != first["config_hash"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, config: Config) -> None:
    (tmp_path / "thesis.docx").write_text("precious")
    with (
        pytest.raises(InputError, match="not empty and not a run"),
        RunFolder.open(tmp_path, config, study="pni", command=""),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_manifest_of_something_else_is_left_alone(tmp_path: Path, config: Config) -> None:
    (tmp_path / "manifest.json").write_text('{"series": []}')
    (tmp_path / "config.yaml").write_text("precious")
    with (
        pytest.raises(InputError, match="not empty and not a run"),
        RunFolder.open(tmp_path, config, study="pni", command=""),
    ):
        pass
    assert (tmp_path / "config.yaml").read_text() == "precious"


def test_a_run_that_was_killed_at_once_can_be_started_again(tmp_path: Path, config: Config) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".manifest.json.123.tmp").write_text("{")
    with RunFolder.open(tmp_path, config, study="pni", command="again") as run:
        assert run.manifest()["command"] == "again"


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(OSError, match="not implemented"),
        RunFolder.open(tmp_path / "run", config, study="pni", command=""),
    ):
        pass


HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time_and_no_stale_lock(tmp_path: Path, config: Config) -> None:
    with RunFolder.open(tmp_path / "run", config, study="pni", command=""):
        pass
    lock = tmp_path / "run" / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match="Another run works in"),
            RunFolder.open(tmp_path / "run", config, study="pni", command=""),
        ):
            pass
        other.kill()
    with RunFolder.open(tmp_path / "run", config, study="pni", command="after the kill") as run:
        assert run.manifest()["command"] == "after the kill"


def test_the_lock_of_this_process_holds_too(tmp_path: Path, config: Config) -> None:
    with (
        RunFolder.open(tmp_path / "run", config, study="pni", command=""),
        pytest.raises(InputError, match="Another run works in"),
        RunFolder.open(tmp_path / "run", config, study="pni", command=""),
    ):
        pass


def test_results_of_another_configuration_do_not_stay(tmp_path: Path, config: Config) -> None:
    """They would lie beside a config.yaml that did not make them."""
    for seed, stay in ((6, True), (7, False)):
        with RunFolder.open(tmp_path / "run", config, study="pni", command="first") as run:
            (run.path / RESULTS).write_text("{}")
            run.update_manifest(wall_seconds=5)
        with RunFolder.open(
            run.path, config.model_copy(update={"seed": seed}), study="pni", command="second"
        ) as run:
            assert (run.path / RESULTS).exists() == stay
            assert "wall_seconds" not in run.manifest()


def test_a_run_of_another_study_is_left_alone(tmp_path: Path, config: Config) -> None:
    with RunFolder.open(tmp_path / "run", config, study="pni", command="first") as run:
        (run.path / RESULTS).write_text("{}")
    with (
        pytest.raises(InputError, match="is a run of 'study pni'"),
        RunFolder.open(run.path, config, study="augmentation", command="second"),
    ):
        pass
    assert (run.path / RESULTS).read_text() == "{}"
    assert run.manifest()["command"] == "first"


def test_once(tmp_path: Path) -> None:
    built: list[str] = []

    def build(folder: Path) -> None:
        assert list(folder.iterdir()) == []
        built.append("x")
        (folder / f"file-{len(built)}").touch()

    folder = tmp_path / "fold-0" / "patches"
    assert once(folder, "key", build) == folder
    once(folder, "key", build)
    assert len(built) == 1
    once(folder, "other key", build)
    assert len(built) == 2
    assert {path.name for path in folder.iterdir()} == {"file-2", ".done"}


def test_another_version_makes_it_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []
    once(tmp_path / "patches", "key", built.append)
    once(tmp_path / "patches", "key", built.append)
    assert len(built) == 1
    monkeypatch.setattr("neonet3d.engine.run.version", lambda _: "99")
    once(tmp_path / "patches", "key", built.append)
    assert len(built) == 2


def test_half_a_removal_does_not_look_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "patches"
    once(folder, "key", lambda f: (f / "whole").touch())
    with monkeypatch.context() as patch:
        patch.setattr("neonet3d.engine.run.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            once(folder, "other key", lambda f: None)
    assert (folder / "whole").exists()
    built: list[Path] = []
    once(folder, "key", built.append)
    assert built == [folder]


def test_a_killed_stage_is_made_anew(tmp_path: Path) -> None:
    def dies(folder: Path) -> None:
        (folder / "half").touch()
        raise KeyboardInterrupt

    folder = tmp_path / "patches"
    with pytest.raises(KeyboardInterrupt):
        once(folder, "key", dies)
    once(folder, "key", lambda f: (f / "whole").touch())
    assert {path.name for path in folder.iterdir()} == {"whole", ".done"}


def test_a_killed_training_finds_its_state(tmp_path: Path) -> None:
    def dies(folder: Path) -> None:
        (folder / STATE).mkdir()
        (folder / STATE / "step").write_text("3")
        (folder / "half").mkdir()
        raise KeyboardInterrupt

    def goes_on(folder: Path) -> None:
        found.append({str(path.relative_to(folder)) for path in folder.rglob("*")})

    found: list[set[str]] = []
    for key, expected in (("key", {STATE, f"{STATE}/step"}), ("other key", set())):
        folder = tmp_path / key / "segmenter"
        with pytest.raises(KeyboardInterrupt):
            once(folder, "key", dies)
        once(folder, key, goes_on)
        assert found.pop() == expected
        assert [path.name for path in folder.parent.iterdir()] == ["segmenter"]


def test_what_a_kill_left_beside_a_stage_is_removed(tmp_path: Path) -> None:
    mine, neighbour = tmp_path / ".patches.0a1b2c3d.tmp", tmp_path / ".patches-2.0a1b2c3d.tmp"
    for leftover in (mine, neighbour):
        leftover.mkdir()
        (leftover / "half").touch()
    (tmp_path / "patches-2").mkdir()
    once(tmp_path / "patches", "key", lambda folder: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        neighbour.name,
        "patches",
        "patches-2",
    ]


def test_the_command_has_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/someone/.venv/bin/neonet3d", "demo", "--seed", "1"])
    assert command_line() == "neonet3d demo --seed 1"


def test_untimed_does_nothing() -> None:
    with untimed("anything"):
        pass
