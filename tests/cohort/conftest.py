"""The check command in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from neonet3d.cli.cohort import app

RunCheck = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def run_check() -> RunCheck:
    """Exit status, the JSON, and what people see."""

    def run(root: Path, *options: str) -> tuple[int, dict[str, Any], str]:
        machine = CliRunner().invoke(app, ["check", str(root), "--json", *options])
        people = CliRunner().invoke(app, ["check", str(root), *options])
        assert machine.exit_code == people.exit_code
        return people.exit_code, json.loads(machine.stdout), people.stdout

    return run
