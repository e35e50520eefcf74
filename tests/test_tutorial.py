"""The notebook of the docs runs from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """As a notebook does: the value of a last line that is an expression."""
    lines = source.rstrip().splitlines()
    try:
        last = compile(lines[-1].split("  #")[0], "cell", "eval")
    except SyntaxError:
        exec(compile(source, "cell", "exec"), names)
        return None
    exec(compile("\n".join(lines[:-1]), "cell", "exec"), names)
    return eval(last, names)


def test_the_tutorial_runs_and_shows_volumes(capsys: Any) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict[str, Any] = {}
    values = [
        run_cell("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"
    ]
    shown = [value._repr_html_() for value in values if hasattr(value, "_repr_html_")]
    assert len(shown) == 6
    assert all("<img" in html for html in shown[1:])
    assert "held-out cases trained this" in capsys.readouterr().out
    assert all(cell.get("outputs") in (None, []) for cell in cells)
