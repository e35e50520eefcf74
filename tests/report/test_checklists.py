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

# TRIPOD+AI numbers its items 1 to 27, and these have parts.
PARTS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc"}
PARTS |= {23: "ab", 27: "abc"}
NUMBERS = {
    "claim-2024": [str(k) for k in range(1, 45)],
    "tripod-ai": [f"{k}{part}" for k in range(1, 28) for part in PARTS.get(k, ("",))],
}


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
        assert [number for number, _, _ in found] == NUMBERS[name]
        assert all(item and text for _, item, text in found)
        source = files("neonet3d.report").joinpath(f"checklists/{name}.yaml").read_text("utf-8")
        items = [i for section in yaml.safe_load(source)["sections"] for i in section["items"]]
        for item, (number, _, text) in zip(items, found, strict=True):
            assert number == item["number"]
            assert text.startswith("**Authors:**") == ("answer" not in item)
        whole = sum("answer" in item and "author" not in item for item in items)
        assert f"(of {len(found)} items the run answers {whole}," in written[name]


def test_answers_have_the_figures_of_the_run(written: dict[str, str], own_run: Path) -> None:
    results = StudyResults.read(own_run)
    claim = {number: text for number, _, text in rows(written["claim-2024"])}
    tripod = {number: text for number, _, text in rows(written["tripod-ai"])}
    auc = interval_text(results.arms[0].auc)
    assert auc in claim["37"]
    assert auc in tripod["23a"]
    assert claim["19"].startswith("2 folds, stratified by outcome")
    assert tripod["21"].startswith("Predicted in every arm: 6 cases, 3 events.")
    assert "Trained on, fold by fold: 3 cases, 2 events, 3 cases, 1 events." in tripod["21"]
    per_fold = "Held out, fold by fold: 3 cases, 1 with pni, 3 cases, 2 with pni."
    assert claim["36"].startswith(per_fold)
    assert claim["35"].startswith("6 cases of 6 participants were held out and predicted; none")
    assert "In 1 of 6 held-out scans NeoSeg found no tumour" in claim["12"]
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
    tripod = {number: text for number, _, text in rows(texts["tripod-ai"])}
    assert tripod["21"].endswith("Trained on, fold by fold: the cases that `splits.json` names.")


def test_paths_of_the_command_and_clinical_columns(own_run: Path) -> None:
    manifest = json.loads((own_run / "manifest.json").read_text())
    manifest["command"] = (
        "neonet3d study pni /home/smith/cohort runs/1 --set a=/x/y --config=/a/b.yaml"
    )
    (own_run / "manifest.json").write_text(json.dumps(manifest))
    config = yaml.safe_load((own_run / "config.yaml").read_text())
    config["clinical"]["columns"] = ["age", "ca19_9"]
    (own_run / "config.yaml").write_text(yaml.safe_dump(config))
    texts = {path.stem: path.read_text("utf-8") for path in write_checklists(own_run)}
    assert "`neonet3d study pni cohort 1 --set a=y --config=b.yaml`" in texts["model-card"]
    assert all("smith" not in text for text in texts.values())
    tripod = {number: text for number, _, text in rows(texts["tripod-ai"])}
    assert "columns age, ca19_9 in the clinical model" in tripod["9a"]
