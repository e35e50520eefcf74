from __future__ import annotations

import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import yaml

from neonet3d.report.checklists import CHECKLISTS, write_checklists
from neonet3d.report.wording import interval_text
from neonet3d.study.results import StudyResults

ITEMS = {"claim-2024": 44, "tripod-ai": 52}


def rows(text: str) -> list[list[str]]:
    """The cells of every line of the tables but their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    return [[cell.strip() for cell in of] for of in cells if of[0].strip()]


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def written(own_run: Path) -> dict[str, str]:
    return {path.stem: path.read_text("utf-8") for path in write_checklists(own_run)}


def test_every_item_is_there_once_and_answered_or_left_to_the_authors(
    written: dict[str, str],
) -> None:
    assert set(written) == {*CHECKLISTS, "model-card"}
    for name in CHECKLISTS:
        found = rows(written[name])
        assert len(found) == ITEMS[name]
        assert len({number for number, _, _ in found}) == ITEMS[name]
        assert all(item and text for _, item, text in found)
        source = files("neonet3d.report").joinpath(f"checklists/{name}.yaml").read_text("utf-8")
        items = [i for section in yaml.safe_load(source)["sections"] for i in section["items"]]
        for item, (number, _, text) in zip(items, found, strict=True):
            assert number == item["number"]
            assert text.startswith("**Authors:**") == ("answer" not in item)
        n = sum("answer" in item for item in items)
        assert f"({n} of {ITEMS[name]} items have an answer" in written[name]


def test_answers_have_the_figures_of_the_run(written: dict[str, str], own_run: Path) -> None:
    results = StudyResults.read(own_run)
    claim = {number: text for number, _, text in rows(written["claim-2024"])}
    tripod = {number: text for number, _, text in rows(written["tripod-ai"])}
    auc = interval_text(results.arms[0].auc)
    assert auc in claim["32"]
    assert auc in tripod["23a"]
    assert claim["19"].startswith("2 folds, stratified by outcome")
    assert tripod["21"] == "6 and 3 in every arm."
    assert claim["36"].startswith("Held out in each fold, with pni of all: 1 of 3, 2 of 3.")
    assert "LEAKY" not in written["claim-2024"]
    for arm in results.arms:
        assert interval_text(arm.auc) in written["model-card"]
    assert "Research use only; not a medical device" in written["model-card"]


def test_no_case_is_named(written: dict[str, str], own_run: Path) -> None:
    for name in StudyResults.read(own_run).cases:
        assert all(name not in text for text in written.values())


def test_own_splits_and_leaky_arms_are_told(own_run: Path) -> None:
    manifest = json.loads((own_run / "manifest.json").read_text())
    manifest["command"] += " --splits mine.json"
    (own_run / "manifest.json").write_text(json.dumps(manifest))
    results = StudyResults.read(own_run)
    leaky = results.arms[1].model_copy(update={"leaky": True})
    changed = results.model_copy(update={"arms": (results.arms[0], leaky)})
    (own_run / "results.json").write_text(changed.model_dump_json())
    texts = {path.stem: path.read_text("utf-8") for path in write_checklists(own_run)}
    claim = {number: text for number, _, text in rows(texts["claim-2024"])}
    assert "the user's own" in claim["19"]
    assert "but for the arms marked LEAKY" in claim["20"]
