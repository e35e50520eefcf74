"""The five segmenters, whole-liver segmentation and TLCR on predicted masks, as Markdown.

python bench/segmentation.py WORK_FOLDER [docs/results/segmentation.md]

Every figure is what the commands print as JSON (``segment train``, ``segment predict``), and is
kept in WORK_FOLDER: a second call goes on where the first stopped. Speed is what
``bench/inference_speed.py`` and ``bench/tlcr_speed.py`` print. NEONET3D_DATA is the folder of the
public data, NOTE a sentence for the head of the page.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.splits import pick_fold, read_splits
from neonet3d.config import NetworkName, fingerprint, load_config
from neonet3d.engine.device import device_summary
from neonet3d.segmentation.predict import lesion_probability
from neonet3d.segmentation.tlcr import crop_to_tumour

BENCH = Path(__file__).resolve().parent
DATA = Path(os.environ.get("NEONET3D_DATA", BENCH.parents[1] / "shared" / "data"))
PRESET = "cpu"
PHANTOMS, TRAINING_PHANTOMS = 100, 40
LIMIT_MM = 10.0
TIMED_CASES = 12
# 5x5x5 kernels and 45 million weights: a step takes about four times as long as another's.
STEPS = {"vnet": 600}
MEASURES = {"dice": 3, "cl_dice": 3, "hd95_mm": 1, "surface_dice": 3}  # and digits
Result = dict[str, Any]


def command(kept: Path, *words: object) -> Result:
    """What a neonet3d command prints as JSON, its seconds and the load beside it; run once."""
    if not kept.is_file():
        print("$ neonet3d", *words, file=sys.stderr)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "neonet3d", *map(str, words), "--json"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        result = json.loads(done.stdout)
        result |= {"seconds": time.perf_counter() - started, "load": os.getloadavg()[1]}
        kept.write_text(json.dumps(result, indent=2) + "\n")
    return json.loads(kept.read_text())


def segment(work: Path, name: str, cohort: Path, fold: list[object], *options: str) -> Result:
    """Train and predict; both results."""
    model, masks = work / f"{name}-model", work / f"{name}-masks"
    settings = [word for option in options for word in ("--set", option)]
    trained = command(
        work / f"{name}-train.json",
        *("segment", "train", cohort, model, *fold, "--preset", PRESET, *settings),
    )
    predicted = command(
        work / f"{name}-predict.json",
        *("segment", "predict", model, cohort, masks, *fold, "--probabilities"),
    )
    return {"train": trained, "predict": predicted}


def hippocampus(work: Path) -> tuple[Path, dict[str, Result]]:
    """Fold 0 of 5: 128 cases train, 32 are segmented, once for each network."""
    cohort = work / "hippocampus"
    command(work / "import.json", "cohort", "import", DATA / "Task04_Hippocampus", cohort)
    return cohort, {name: hippocampus_network(work, cohort, name) for name in get_args(NetworkName)}


def hippocampus_network(work: Path, cohort: Path, name: str) -> Result:
    settings = [f"segmenter.network={name}"]
    if name in STEPS:
        settings.append(f"segmenter.loop.steps={STEPS[name]}")
    return segment(work, f"hippocampus-{name}", cohort, ["--fold", "0/5"], *settings)


def phantoms(work: Path) -> tuple[Path, Path, Result]:
    """Whole livers: the first 40 of 100 phantoms train, the others are segmented."""
    cohort, splits = work / "phantom", work / "splits.json"
    size = f"phantom.n={PHANTOMS}"
    command(work / "phantom.json", "cohort", "phantom", cohort, "--preset", PRESET, "--set", size)
    names = sorted(case.name for case in Cohort.open(cohort))
    halves = {"train": names[:TRAINING_PHANTOMS], "val": names[TRAINING_PHANTOMS:]}
    splits.write_text(json.dumps([halves]))
    fold: list[object] = ["--splits", splits, "--fold", "0"]
    return cohort, splits, segment(work, "phantom", cohort, fold)


def roi_shifts_mm(work: Path, cohort: Path, splits: Path) -> dict[str, float]:
    """How far TLCR's window moves with a predicted mask; inf where no tumour was found."""
    held_out = pick_fold(read_splits(splits, Cohort.open(cohort)), "0").held_out
    roi, masks = load_config(PRESET).roi, work / "phantom-masks"
    probability = lesion_probability(masks)
    predicted = held_out.with_overlaid_masks(
        {case.name: masks / f"{case.name}.nii.gz" for case in held_out}, held_out.schema
    )
    schema, shifts = held_out.schema, {}
    for reference, case in zip(held_out, predicted, strict=True):
        image, drawn = reference.read_with_mask()
        _, found = case.read_with_mask()
        wanted = crop_to_tumour(image, drawn, schema, roi)
        if not (found.data == schema.value("tumour")).any():
            shifts[case.name] = float("inf")
            continue
        given = crop_to_tumour(image, found, schema, roi, tumour_probability=probability(case))
        moved = given.image.affine - wanted.image.affine
        shape = np.array([*roi.shape, 1.0]) / 2
        shifts[case.name] = float(np.linalg.norm((moved @ shape)[:3]))
    return shifts


def lines(work: Path) -> Iterator[str]:
    hippocampi, networks = hippocampus(work)
    cohort, splits, liver = phantoms(work)
    shifts = np.array(list(roi_shifts_mm(work, cohort, splits).values()))
    near = int((shifts < LIMIT_MM).sum())
    config = load_config(PRESET)
    yield "# Segmentation"
    yield ""
    yield f"Written by `bench/segmentation.py` on {datetime.now(UTC):%Y-%m-%d}, commit {commit()};"
    yield f"{device_summary()}, {platform.processor() or platform.machine()};"
    yield f"Python {platform.python_version()}, torch {version('torch')}, MONAI {version('monai')};"
    yield f"preset `{PRESET}`, configuration {fingerprint(config)}, data"
    yield f"{data_hash(hippocampi)} (hippocampus) and {data_hash(cohort)} (phantom)."
    if note := os.environ.get("NOTE"):
        yield note
    yield "Minutes are of the whole training command as it ran, beside the load average at its end."
    yield ""
    yield "## Five networks on the hippocampus"
    yield ""
    yield "Task04_Hippocampus of the Medical Segmentation Decathlon, fold 0 of 5: 128 cases train,"
    yield "32 are segmented. Intervals resample patients. nnU-Net's published mean is .89 to .90."
    yield f"{config.segmenter.loop.steps} steps each, but for"
    yield ", ".join(f"{name} ({steps}, which take as long)" for name, steps in STEPS.items()) + "."
    yield ""
    yield "| network | patch | stem | mean Dice | anterior | posterior | HD95 in mm, median |"
    yield "|---|---|---|---|---|---|---|"
    for name, of in networks.items():
        plan, dice, far = of["train"]["plan"], of["predict"]["dice"], of["predict"]["hd95_mm"]
        mean = np.mean([dice[part]["value"] for part in dice])
        distance = " / ".join(f"{far[part]['value']:.1f}" for part in far)
        yield (
            f"| {name} | {size(plan['patch'])} | {'Haar' if plan['stem'] else 'none'} | {mean:.3f} "
            f"| {cell(dice['anterior'])} | {cell(dice['posterior'])} | {distance} |"
        )
    yield ""
    yield "| network | minutes of training | load | best step | Dice on inner validation |"
    yield "|---|---|---|---|---|"
    for name, of in networks.items():
        yield f"| {name} | {training(of['train'])}"
    yield ""
    yield "## Whole livers of phantoms"
    yield ""
    plan = liver["train"]["plan"]
    predicted = liver["predict"]
    yield f"{TRAINING_PHANTOMS} of {PHANTOMS} phantoms train a {plan['network']} (patch"
    yield f"{size(plan['patch'])} at {size(plan['spacing_mm'])} mm), {predicted['scored']} are"
    yield "segmented."
    yield ""
    yield "| class | Dice | clDice | HD95 in mm, median | surface Dice at 2 mm |"
    yield "|---|---|---|---|---|"
    for name in predicted["dice"]:
        row = (
            cell(predicted[measure][name], digits) if name in predicted[measure] else "-"
            for measure, digits in (
                ("dice", 3),
                ("cl_dice", 3),
                ("hd95_mm", 1),
                ("surface_dice", 3),
            )
        )
        yield f"| {name} | {' | '.join(row)} |"
    found, false = predicted["lesion_sensitivity"]["tumour"], predicted["false_findings"]["tumour"]
    yield ""
    yield f"Tumours found: {found['n_positive']} of {found['n']}, {cell(found)}; findings that are"
    yield f"none: {cell(false, 2)} a scan."
    yield ""
    yield "| network | minutes of training | load | best step | Dice on inner validation |"
    yield "|---|---|---|---|---|"
    yield f"| {plan['network']} | {training(liver['train'])}"
    yield ""
    yield "## TLCR with predicted masks"
    yield ""
    yield f"The window's middle moves by less than {LIMIT_MM:g} mm in {near} of {len(shifts)} of"
    yield f"these phantoms ({near / len(shifts):.3f}); median {np.median(shifts):.1f} mm, 95th"
    yield f"percentile {np.quantile(shifts, 0.95, method='higher'):.1f} mm, largest"
    yield f"{shifts.max():.1f} mm (inf: no tumour was found)."
    yield ""
    model = work / "phantom-model"
    fold = ("--splits", splits, "--fold", "0", "--cases", TIMED_CASES)
    yield from page(work / "inference.md", "inference_speed.py", model, cohort, *fold)
    yield ""
    yield from page(work / "tlcr.md", "tlcr_speed.py")


def page(kept: Path, script: str, *words: object) -> list[str]:
    """What another bench prints, as sections of this page; run once."""
    if not kept.is_file():
        print("$", script, *words, file=sys.stderr)
        done = subprocess.run(
            [sys.executable, str(BENCH / script), *map(str, words)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        kept.write_text(done.stdout)
    text = kept.read_text().rstrip()
    return [f"#{line}" if line.startswith("#") else line for line in text.splitlines()]


def training(trained: Result) -> str:
    return (
        f"{trained['seconds'] / 60:.1f} | {trained['load']:.1f} | {trained['best_step']} | "
        f"{trained['validation_dice']:.3f} ({trained['validation_cases']} cases) |"
    )


def cell(of: Result, digits: int = 3) -> str:
    value, low, high = (of[key] for key in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def size(of: list[float]) -> str:
    return "x".join(f"{n:g}" for n in of)


def data_hash(cohort: Path) -> str:
    return fingerprint(sorted(case.digest() for case in Cohort.open(cohort)))


def commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=BENCH,
        capture_output=True,
        text=True,
        check=True,
    )
    return found.stdout.strip()


def main() -> None:
    work = Path(sys.argv[1])
    work.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines(work)) + "\n"
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
