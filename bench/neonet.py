"""The NeoNet experiment on 128 phantom patients, 44 of them positive: docs/results/neonet.md.

python bench/neonet.py WORK_FOLDER docs/results/neonet.md [--json FILE]

Makes the cohort, runs ``neonet3d study pni --leaky`` with the cpu preset (an interrupted run goes
on) and writes every arm on a page. Environment: NOTE a sentence for the head of the page, SETTINGS
further overrides, to try the path out.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

from segmentation import command, commit

from neonet3d.cohort.cohort import Cohort
from neonet3d.config import fingerprint
from neonet3d.report.wording import (
    duration,
    interval_text,
    mean_and_deviation,
    number,
    p_value,
    range_text,
    spoken,
)
from neonet3d.study.results import Arm, StudyResults

PRESET = "cpu"
SETTINGS = os.environ.get("SETTINGS", "").split()
PAPER_AUC = 0.79


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    cohort, run = options.work / "phantom-128", options.work / "neonet"
    command(options.work / "phantom-128.json", "cohort", "phantom", cohort, "--preset", PRESET)
    settings = [word for one in SETTINGS for word in ("--set", one)]
    words = ("study", "pni", cohort, run, "--leaky", "--preset", PRESET, *settings)
    command(options.work / "neonet.json", *words)
    results = StudyResults.read(run)
    manifest = json.loads((run / "manifest.json").read_text())
    data = fingerprint(sorted(case.digest() for case in Cohort.open(cohort)))
    options.page.write_text("\n".join(lines(results, manifest, data)).rstrip() + "\n")
    if options.json is not None:
        options.json.write_text(json.dumps(figures(results), indent=2) + "\n")


def figures(results: StudyResults) -> dict[str, object]:
    """What the issue asks of, for machines."""
    assert results.ceiling_auc is not None  # of a phantom it is known
    ceiling = results.ceiling_auc.value
    return {
        "auc": {arm.key: arm.auc.value for arm in results.arms},
        "ceiling_auc": ceiling,
        "share_of_the_way": {
            arm.key: (arm.auc.value - 0.5) / (ceiling - 0.5) for arm in results.arms
        },
        "minutes": sum(results.seconds.values()) / 60,
    }


def lines(results: StudyResults, manifest: dict[str, object], data: str) -> Iterator[str]:
    """The page."""
    starts = manifest["starts"]
    assert isinstance(starts, list)
    honest = [arm for arm in results.arms if not arm.leaky]
    first, *others = honest
    compared = {one.second: one for one in results.comparisons}
    yield "# The NeoNet experiment on phantoms"
    yield ""
    yield f"Written by `bench/neonet.py`, commit {commit()}; run of {starts[-1][:10]} on"
    yield f"{manifest['device']}, configuration {manifest['config_hash']}, data {data},"
    yield f"neonet3d {manifest['package']}, torch {manifest['torch']};"
    yield f"{duration(sum(results.seconds.values()))} in all."
    if note := os.environ.get("NOTE"):
        yield note
    positive = sum(results.outcomes)
    yield f"{len(results.cases)} patients, {positive} positive, {len(set(results.folds))} folds;"
    yield "every figure is of held-out patients, pooled over the folds."
    yield ""
    ceiling = results.ceiling_auc
    assert ceiling is not None
    yield f"Best reachable on these patients (their true probabilities): {interval_text(ceiling)}."
    yield f"Of the way from .5 to it, the first arm goes {share(first, ceiling.value)}. The paper's"
    yield f"best single figure, of other patients, is {PAPER_AUC}."
    yield ""
    yield "| arm | pooled AUC [95 % DeLong] | folds | Brier | of the way | first less this | p |"
    yield "|---|---|---|---|---|---|---|"
    for arm in [first, *sorted(others, key=lambda one: -one.auc.value)]:
        one = compared.get(arm.key)
        difference = (
            "" if one is None else f"{number(one.difference)} " + range_text(one.low, one.high)
        )
        yield (
            f"| {arm.title} | {interval_text(arm.auc)} | {mean_and_deviation(arm.fold_aucs)} | "
            f"{number(arm.judgement.brier.value)} | {share(arm, ceiling.value)} | {difference} | "
            f"{'' if one is None else p_value(one.p_value)} |"
        )
    yield ""
    for arm in results.arms:
        if arm.leaky:
            pretended = arm.auc.value - first.auc.value
            yield f"Leaky, and no estimate: {arm.title}: {interval_text(arm.auc)}, which pretends"
            yield f"{number(pretended)} more than the first arm."
            yield ""
    dice = [f"{spoken(name)} {interval_text(of)}" for name, of in results.segmentation.items()]
    yield f"NeoSeg, Dice on held-out scans: {', '.join(dice)}"
    yield f"(no tumour found in {results.no_tumour_found} of them)."
    of_real = results.adherence_of_real
    read = [
        f"{spoken(name)} {interval_text(of)} (real {interval_text(of_real[name])})"
        for name, of in results.adherence.items()
    ]
    yield f"NeoGen, Dice of NeoSeg's reading on synthetic patches: {', '.join(read)}"
    membership = ", ".join(interval_text(of) for of in results.membership)
    yield f"; membership inference in each fold: {membership}."


def share(arm: Arm, ceiling: float) -> str:
    """``76 %`` of the way from chance to the best reachable."""
    return f"{100 * (arm.auc.value - 0.5) / (ceiling - 0.5):.0f} %"


if __name__ == "__main__":
    main()
