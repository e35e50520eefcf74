from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import pytest
import torch
import typer

from neonet3d.cli.app import app
from neonet3d.config import load_config

COMMANDS = {
    ("demo",),
    ("crop",),
    ("dicom",),
    ("place-back",),
    ("report",),
    ("serve",),
    ("info",),
    ("cohort", "phantom"),
    ("cohort", "import"),
    ("cohort", "check"),
    ("segment", "plan"),
    ("segment", "train"),
    ("segment", "evaluate"),
    ("segment", "predict"),
    ("generate", "train"),
    ("generate", "sample"),
    ("generate", "balance"),
    ("generate", "evaluate"),
    ("classify", "train"),
    ("classify", "predict"),
    ("classify", "explain"),
    ("study", "augmentation"),
    ("study", "plan"),
    ("study", "repeats"),
    ("study", "pni"),
}


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group below one, with the words that call it."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


TREE = dict(walk(typer.main.get_command(app)))


def test_the_commands_are_those_of_the_design() -> None:
    leaves = {path for path, command in TREE.items() if not hasattr(command, "commands")}
    assert leaves == COMMANDS


@pytest.mark.parametrize("path", sorted(TREE), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...], run: Callable[..., Any]) -> None:
    """Each lists its commands or options, and each option says what it is."""
    done = run(*path, "--help")
    assert done.status == 0
    assert done.stderr == ""
    assert "Usage" in done.stdout
    command = TREE[path]
    for name in getattr(command, "commands", {}):
        assert name in done.stdout
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert max(parameter.opts, key=len) in done.stdout
            assert parameter.help, f"{' '.join(path)} {parameter.name} has no help"


@pytest.mark.parametrize(
    "path", sorted(COMMANDS - {("report",), ("info",), ("serve",)}), ids=" ".join
)
def test_every_command_prints_json_for_machines(path: tuple[str, ...]) -> None:
    options = {option for parameter in TREE[path].params for option in parameter.opts}
    assert "--json" in options


@pytest.mark.parametrize("path", [p for p in sorted(COMMANDS) if p[-1] in ("train", "pni")])
def test_what_trains_takes_preset_config_overrides_and_seed(path: tuple[str, ...]) -> None:
    options = {option for parameter in TREE[path].params for option in parameter.opts}
    assert {"--preset", "--config", "--set", "--seed"} <= options


def test_info_is_json_with_the_resolved_configuration(run: Callable[..., Any]) -> None:
    found = run("info", "--preset", "demo", "--set", "unet.loop.steps=7", "--seed", "5").json()
    expected = load_config("demo", overrides=["unet.loop.steps=7"], seed=5)
    assert found["config"] == expected.model_dump(mode="json")
    assert found["neonet3d"] == version("neonet3d")
    assert found["torch"] == torch.__version__
    assert found["presets"] == ["demo", "cpu", "gpu", "paper", "liver"]
    assert found["device"]
