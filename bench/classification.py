"""PattenNet beside its baselines on 128 phantom patients, and on VesselMNIST3D: page and JSON.

python bench/classification.py WORK_FOLDER [docs/results/classification.md] [--json FILE]

Phantom: patches cut around the reference tumour, five folds. In each fold an autoencoder is trained
on its training patients, then every model; held-out probabilities are pooled over the folds. Every
AUC has a DeLong interval, every model a paired test against PattenNet on the same patients.
Vessels: the official split, five seeds each of a ResNet-18 and of PattenNet (on the encoder's maps
and on signed distances to the vessel), with the training cases and with a generator's 1:1 balance.
What is trained is kept in WORK_FOLDER; a second call goes on where the first stopped. Environment:
NEONET3D_DATA is the folder of the public data; NOTE a sentence for the head of the page; CASES the
first so many phantoms and SETTINGS further overrides, to try the paths out; DATASETS which of the
two; LIMIT_MINUTES after which no further model of the phantoms is begun (the page names those).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import explanations
import numpy as np
from classification_models import (
    ON_MAPS,
    OURS,
    SETTINGS,
    Result,
    Train,
    baseline,
    kept_in,
    p_value,
    patten,
    plain,
    predicted,
    radiomics,
    slug,
    text,
)
from generator_data import write_phantoms
from scipy.special import logit
from segmentation import commit
from vessels import vessels, vessels_page

from neonet3d.classification.networks import TITLES
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import stratified_folds
from neonet3d.cohort.phantom.patient import draw_label
from neonet3d.cohort.phantom.writer import SEED_STRIDE
from neonet3d.config import BaselineName, Config, fingerprint, load_config
from neonet3d.engine.device import device_summary
from neonet3d.generation.latents import FoldLatents
from neonet3d.generation.train import fit_anatomy, train_autoencoder
from neonet3d.metrics.brier import brier_score
from neonet3d.metrics.calibration import calibration_slope
from neonet3d.metrics.discrimination import delong, delong_paired
from neonet3d.metrics.interval import Interval, wilson

N, SEED, FOLDS = int(os.environ.get("CASES", "128")), 1, 5
LIMIT_MINUTES = float(os.environ.get("LIMIT_MINUTES", "inf"))
QUICK: tuple[BaselineName, ...] = ("resnet18",)  # before the ablations
DATASETS = os.environ.get("DATASETS", "phantom vessels").split()
ABLATIONS = {
    "appearance factors alone": ("classifier.readings=[appearance]",),
    "deep reading alone": ("classifier.readings=[deep]",),
    "no attention": ("classifier.attention=none",),
    "channel attention only": ("classifier.attention=channel",),
    "spatial attention only": ("classifier.attention=spatial",),
    "distances to every class as channels too": ("classifier.masks_as_channels=true",),
    "one orientation, no augmentation": ("classifier.encodings=1",),
    "deep reading of the encoder's maps": ("classifier.features=maps",),
    "of the maps alone": ON_MAPS,
    "of the maps alone, random encoder": (*ON_MAPS, "classifier.encoder=random"),
    "of the maps alone, encoder trained along": (*ON_MAPS, "classifier.encoder=trainable"),
    "self-attention (DANet)": ("classifier.attention=danet",),
}


def models() -> dict[str, tuple[Train, tuple[str, ...]]]:
    """Title to training and overrides: ours, the quick ones, the ablations, the rest."""
    found: dict[str, tuple[Train, tuple[str, ...]]] = {OURS: (patten, ())}
    found["radiomics, logistic regression"] = (radiomics, ())
    networks = {
        TITLES[name]: (baseline, (f"baseline.network={name}", "baseline.width=1"))
        for name in get_args(BaselineName)
    }
    found |= {TITLES[name]: networks[TITLES[name]] for name in QUICK}
    found |= {f"{OURS}, {name}": (patten, words) for name, words in ABLATIONS.items()}
    return found | networks


def phantom(work: Path, config: Config) -> Result:
    """Pooled out-of-fold figures of every model."""
    cohort = Cohort.open(write_phantoms(config, work / "rois", SEED, N))
    folds = stratified_folds(cohort, FOLDS, seed=config.seed)
    outcomes = np.concatenate([fold.held_out.outcomes for fold in folds])
    numbers = [int(case.name[1:]) for fold in folds for case in fold.held_out]
    truth = np.array([draw_label(SEED * SEED_STRIDE + i).probability for i in numbers])
    scores: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    for fold in folds:
        place = work / fold.name
        place.mkdir(parents=True, exist_ok=True)
        train_autoencoder(fold, config, place / "autoencoder")
        fit_anatomy(FoldLatents(fold, place / "autoencoder"), config, place)
    ours: list[Result] = []
    missing, started = [], time.perf_counter()
    for title, (train, words) in models().items():
        known = all(kept_in(work / fold.name, title).is_file() for fold in folds)
        if not known and time.perf_counter() - started > 60 * LIMIT_MINUTES:
            missing.append(title)
            continue
        print("#", title, file=sys.stderr)
        places = [work / fold.name for fold in folds]
        parts = [
            predicted(fold, place, place, title, train, words, config)
            for fold, place in zip(folds, places, strict=True)
        ]
        scores[title] = np.concatenate([part["probability"] for part in parts])
        seconds[title] = float(np.median([part["seconds"] for part in parts]))
        ours = parts if title == OURS else ours
    splits = work / "splits.json"
    first = [[case.name for case in part] for part in (folds[0].training, folds[0].held_out)]
    splits.write_text(json.dumps([dict(zip(("train", "val"), first, strict=True))]))
    seeds = [SEED * SEED_STRIDE + int(case.name[1:]) for case in folds[0].held_out]
    place = work / folds[0].name
    explained = explanations.measure(folds[0], splits, place, place / slug(OURS), seeds, config)
    rows: Result = {}
    for title, values in scores.items():
        row: Result = {
            "auc": plain(delong(outcomes, values)),
            "brier": plain(brier_score(outcomes, values, config.seed)),
            "training_seconds": seconds[title],
        }
        if title != OURS:
            compared = delong_paired(outcomes, scores[OURS], values)
            row["ours_minus"] = plain(compared.interval) | {"p": compared.p_value}
        rows[title] = row
    return {
        "n": len(cohort),
        "positive": int(outcomes.sum()),
        "ceiling": plain(delong(outcomes, truth)),
        "models": rows,
        "missing": missing,
        "certainty": certainty(outcomes, ours),
        "explanations": explained,
    }


def certainty(outcomes: np.ndarray, parts: list[Result]) -> Result:
    """What PattenNet's intervals, sets and flags are worth on held-out patients."""
    keys = [key for key in parts[0] if key != "seconds"]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in keys}
    may_be, n = joined["may_be"], len(outcomes)
    covered = may_be[np.arange(n), outcomes]
    slope = calibration_slope(outcomes, logit(joined["probability"]))
    return {
        "covered": {str(y): plain(_share(covered[outcomes == y])) for y in (0, 1)},
        "one_class": plain(_share(may_be.sum(1) == 1)),
        "unfamiliar": plain(_share(joined["unfamiliar"])),
        "interval_width": float(np.median(joined["high"] - joined["low"])),
        "mean_probability": float(joined["probability"].mean()),
        "calibration_slope": plain(slope.slope),
    }


def _share(of: np.ndarray) -> Interval:
    return wilson(int(of.sum()), len(of))


def page(found: Result, config: Config) -> Iterator[str]:
    yield "# PattenNet beside its baselines"
    yield ""
    yield f"Written by `bench/classification.py` on {datetime.now(UTC):%Y-%m-%d},"
    yield f"commit {commit()}; {device_summary()}; configuration {fingerprint(config)}."
    yield "Its docstring says how."
    if note := os.environ.get("NOTE"):
        yield note
    if "phantom" in found:
        yield from phantom_page(found["phantom"])
    if "vessels" in found:
        yield from vessels_page(found["vessels"])


def phantom_page(of: Result) -> Iterator[str]:
    yield from ["", "## Phantom patients, reference masks", ""]
    yield (
        f"{of['n']} patients, {of['positive']} positive, {FOLDS} folds, pooled out of fold. "
        f"The true probabilities have AUC {text(of['ceiling'])}. Seconds: median training of a "
        "fold, without the encoder's."
    )
    yield from [
        "",
        "| model | AUC | PattenNet minus it | p | Brier | s |",
        "|" + "---|" * 6,
    ]
    for title, row in of["models"].items():
        minus = row.get("ours_minus")
        apart = "| | " if minus is None else f"| {text(minus)} | {p_value(minus['p'])} "
        yield (
            f"| {title} | {text(row['auc'])} {apart}| {row['brier']['value']:.3f} "
            f"| {row['training_seconds']:.0f} |"
        )
    if of["missing"]:
        yield from ["", f"Not run within the time: {', '.join(of['missing'])}."]
    sure = of["certainty"]
    yield from ["", "How sure PattenNet says it is, out of fold:", ""]
    for y, share in sure["covered"].items():
        yield f"- its 90 % sets hold {y} in {text(share)} of those who are {y};"
    yield f"- they hold one class alone in {text(sure['one_class'])};"
    yield f"- it calls {text(sure['unfamiliar'])} unfamiliar, of whom none is;"
    yield f"- mean probability {sure['mean_probability']:.3f} where {of['positive'] / of['n']:.3f}"
    yield f"  are positive, calibration slope {text(sure['calibration_slope'])};"
    yield f"- the median interval is {sure['interval_width']:.2f} wide."
    yield from explained_page(of["explanations"])


def explained_page(of: Result) -> Iterator[str]:
    yield from ["", "## Where the explanations fall", ""]
    yield (
        f"{of['n']} held-out patients of the first fold; `bench/explanations.py` says what the "
        f"truth is. A map without any knowledge hits in {of['chance']:.3f}, its voxel AUC is 0.5."
    )
    yield from ["", "| map | pointing game | voxel AUC |", "|" + "---|" * 3]
    for name, row in of["maps"].items():
        yield f"| {name} | {text(row['hits'])} | {text(row['auc'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("page", type=Path, nargs="?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    config = load_config("cpu", overrides=SETTINGS)
    found: Result = {}
    if "phantom" in DATASETS:
        found["phantom"] = phantom(options.work, config)
    if "vessels" in DATASETS:
        found["vessels"] = vessels(options.work)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.page:
        options.page.write_text("\n".join(page(found, config)) + "\n")


if __name__ == "__main__":
    main()
