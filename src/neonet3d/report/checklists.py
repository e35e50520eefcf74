"""CLAIM 2024, TRIPOD+AI and a model card, filled in from a finished run as far as it knows.

The items stand in ``checklists/*.yaml``: an answer is a sentence with figures of the run in it, and
an item without one is the author's. Nothing is answered that the run does not show.
"""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.volume import write_atomically
from neonet3d.report import wording
from neonet3d.report.html import environment
from neonet3d.study.results import Arm, StudyResults

CHECKLISTS = ("claim-2024", "tripod-ai")


def write_checklists(run: Path) -> tuple[Path, ...]:
    """Write ``claim-2024.md``, ``tripod-ai.md`` and ``model-card.md`` to a finished run's folder.

    Reads ``results.json``, ``manifest.json`` and ``config.yaml``. No case is named.

    Returns:
        Their paths.
    """
    # Markdown; no text of a cohort is in it but class names and the outcome's.
    facts, templates = _facts(run), environment().overlay(autoescape=False)
    written = {"model-card": templates.get_template("model-card.md.j2").render(facts)}
    for name in CHECKLISTS:
        source = files("neonet3d.report").joinpath(f"checklists/{name}.yaml").read_text("utf-8")
        checklist = yaml.safe_load(source)
        sections = [
            {
                "name": section["name"],
                "rows": [_row(item, templates, facts) for item in section["items"]],
            }
            for section in checklist["sections"]
        ]
        items = [item for section in checklist["sections"] for item in section["items"]]
        written[name] = templates.get_template("checklist.md.j2").render(
            title=checklist["title"],
            source=checklist["source"],
            sections=sections,
            manifest=facts["manifest"],
            n_items=len(items),
            n_answered=sum("answer" in item and "author" not in item for item in items),
            n_partly=sum("answer" in item and "author" in item for item in items),
        )
    paths = tuple(run / f"{name}.md" for name in written)
    for path, text in zip(paths, written.values(), strict=True):
        write_atomically(path, (text.strip() + "\n").encode())
    return paths


def _row(item: dict[str, str], templates: Environment, facts: dict[str, Any]) -> dict[str, str]:
    """One line of the table; a pipe would end its cell."""
    said = []
    if "answer" in item:
        said.append(templates.from_string(item["answer"]).render(facts).strip())
    if "author" in item or "answer" not in item:
        said.append(f"**Authors:** {item.get('author', 'to be filled in.')}")
    text = " ".join(said).replace("|", "\\|").replace("\n", " ")
    return {"number": item["number"], "item": item["item"], "text": text}


def _facts(run: Path) -> dict[str, Any]:
    """What the sentences are made of."""
    results = StudyResults.read(run)
    manifest = json.loads((run / "manifest.json").read_text("utf-8"))
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    first, folds = results.arms[0], sorted(set(results.folds))
    held_out, n_positive = Counter(results.folds), sum(results.outcomes)
    positive = Counter(f for f, y in zip(results.folds, results.outcomes, strict=True) if y)
    return {
        "r": results,
        "manifest": manifest,
        "config": config,
        "first": first,
        "manifest_seed": config["seed"],
        "command": wording.without_folders(manifest["command"]),
        "flow": _flow(run, results),
        "missing": _missing(results, config),
        "stopping": (
            "early stopping on patients of the training fold"
            if config["segmenter"]["validation_share"] > 0
            else "the averaged weights after the last step"
        ),
        "rules": "; ".join(one.rule for one in first.judgement.operating) or "none",
        "own_splits": "--splits" in manifest["command"],
        "leaky": any(arm.leaky for arm in results.arms),
        "n_folds": len(folds),
        "n_positive": n_positive,
        "titles": "; ".join(arm.title for arm in results.arms),
        "per_fold": ", ".join(
            f"{held_out[f]} cases, {positive[f]} with {results.outcome}" for f in folds
        ),
        "trained_on": ", ".join(
            f"{len(results.cases) - held_out[f]} cases, {n_positive - positive[f]} events"
            for f in folds
        ),
        "fold_aucs": ", ".join(wording.number(value) for value in first.fold_aucs),
        "membership": ", ".join(wording.number(one.value) for one in results.membership),
        "synthetic": _synthetic(results),
        "headline": (
            f"First arm ({first.title}): AUC {wording.interval_text(first.auc)} "
            f"({first.auc.method}), pooled over {len(results.cases)} held-out cases."
        ),
        "calibration": _calibration(first),
        "operating": _operating(first),
    }


def _flow(run: Path, results: StudyResults) -> str:
    """How many of the cohort's cases and participants were predicted."""
    crops = Cohort.open(run / "crops")
    people = len({case.participant for case in crops if case.name in results.cases})
    n, left = len(results.cases), len(crops) - len(results.cases)
    others = f"{left} of the cohort are held out in no fold" if left else "none was left out"
    return f"{n} cases of {people} participants were held out and predicted; {others}."


def _missing(results: StudyResults, config: dict[str, Any]) -> str:
    said = "Cases without a mask or an outcome are refused"
    if "tumour" not in results.classes:
        return said + "."
    where = "whole liver" if config["roi"]["around"] == "liver" else "middle of the liver"
    n, lost = len(results.cases), results.no_tumour_found
    return (
        f"{said}, and so are cases whose reference mask has no tumour. In {lost} of {n} held-out "
        f"scans NeoSeg found no tumour; there the {where} was classified, or, where it found no "
        "liver either, the prevalence of the training cases taken. All are in every figure."
    )


def _synthetic(results: StudyResults) -> str:
    if not results.balance:
        return "none"
    return "; ".join(
        f"{one.fold} ({one.data}): {one.synthetic[0]} positive and {one.synthetic[1]} negative to "
        f"{one.real[0]} and {one.real[1]} real ones, {one.rejected} of {one.drawn} draws refused"
        for one in results.balance
    )


def _calibration(arm: Arm) -> str:
    judged = arm.judgement
    line = (
        "no calibration line"
        if judged.slope is None or judged.intercept is None
        else f"calibration slope {wording.interval_text(judged.slope)}, intercept "
        f"{wording.interval_text(judged.intercept)}"
    )
    return f"Brier score {wording.interval_text(judged.brier)}, {line}."


def _operating(arm: Arm) -> str:
    said = [
        f"{one.rule}: sensitivity {wording.interval_text(one.sensitivity)}, specificity "
        f"{wording.interval_text(one.specificity)}"
        for one in arm.judgement.operating
        if one.sensitivity is not None and one.specificity is not None
    ]
    if not said:
        return "No operating point: too few cases of a class."
    return "At thresholds chosen on the other folds: " + "; ".join(said) + "."
