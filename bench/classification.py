"""PattenNet beside its baselines on 128 phantom patients, and on VesselMNIST3D: page and JSON.

python bench/classification.py WORK_FOLDER [docs/results/classification.md] [--json FILE]

Phantom: patches cut around the reference tumour, five folds. In each fold an autoencoder is trained
on its training patients, then every model; held-out probabilities are pooled over the folds. Every
AUC has a DeLong interval, every model a paired test against PattenNet on the same patients.
Vessels: the official split, PattenNet (on the encoder's maps) and a ResNet-18 with five seeds each.
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
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import explanations
import numpy as np
from generator_data import write_phantoms
from scipy.special import logit
from segmentation import DATA, command, commit

from neonet3d.classification.networks import TITLES
from neonet3d.classification.predict import Classifier
from neonet3d.classification.train import train_patten
from neonet3d.classification.train_baseline import train_baseline
from neonet3d.classification.train_radiomics import train_radiomics
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold, choose_fold, stratified_folds
from neonet3d.cohort.phantom.patient import draw_label
from neonet3d.cohort.phantom.writer import SEED_STRIDE
from neonet3d.config import BaselineName, Config, fingerprint, load_config
from neonet3d.engine.artefact import read_card
from neonet3d.engine.device import device_summary
from neonet3d.generation.latents import FoldLatents
from neonet3d.generation.train import fit_anatomy, train_autoencoder
from neonet3d.metrics.brier import brier_score
from neonet3d.metrics.calibration import calibration_slope
from neonet3d.metrics.discrimination import delong, delong_paired
from neonet3d.metrics.interval import Interval, wilson

Result = dict[str, Any]
Train = Callable[[Fold, Path, Path, Config], None]

N, SEED, FOLDS = int(os.environ.get("CASES", "128")), 1, 5
SETTINGS = os.environ.get("SETTINGS", "").split()
LIMIT_MINUTES = float(os.environ.get("LIMIT_MINUTES", "inf"))
VESSEL_SEEDS = range(5)
OURS = "PattenNet"
QUICK: tuple[BaselineName, ...] = ("resnet18",)  # before the ablations
DATASETS = os.environ.get("DATASETS", "phantom vessels").split()
ON_MAPS = ("classifier.features=maps", "classifier.readings=[deep]")
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


def patten(fold: Fold, encoder: Path, out: Path, config: Config) -> None:
    train_patten(fold, encoder, config, out)


def baseline(fold: Fold, encoder: Path, out: Path, config: Config) -> None:
    train_baseline(fold, read_card(encoder).reading, config, out)


def radiomics(fold: Fold, encoder: Path, out: Path, config: Config) -> None:
    train_radiomics(fold, read_card(encoder).reading, config, out)


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


def slug(title: str) -> str:
    return title.replace(",", "").replace(" ", "-").lower()


def kept_in(work: Path, title: str) -> Path:
    return work / f"{slug(title)}.json"


def predicted(
    fold: Fold, work: Path, title: str, train: Train, words: tuple[str, ...], config: Config
) -> Result:
    """Held-out probabilities of one model of one fold, and the seconds of its training."""
    folder, kept = work / slug(title), kept_in(work, title)
    if not kept.is_file():
        started = time.perf_counter()
        settings = load_config("cpu", overrides=[*SETTINGS, *words], seed=config.seed)
        train(fold, work / "autoencoder", folder, settings)
        found: Result = {"seconds": time.perf_counter() - started}
        classifier = Classifier.load(folder)
        if classifier.card.kind == "PattenNet":
            sure = classifier.assess(fold.held_out)
            found |= {key: value.tolist() for key, value in vars(sure).items()}
        else:
            found["probability"] = classifier.predict(fold.held_out).tolist()
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


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
        parts = [predicted(fold, work / fold.name, title, train, words, config) for fold in folds]
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
            "auc": _plain(delong(outcomes, values)),
            "brier": _plain(brier_score(outcomes, values, config.seed)),
            "training_seconds": seconds[title],
        }
        if title != OURS:
            compared = delong_paired(outcomes, scores[OURS], values)
            row["ours_minus"] = _plain(compared.interval) | {"p": compared.p_value}
        rows[title] = row
    return {
        "n": len(cohort),
        "positive": int(outcomes.sum()),
        "ceiling": _plain(delong(outcomes, truth)),
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
        "covered": {str(y): _plain(_share(covered[outcomes == y])) for y in (0, 1)},
        "one_class": _plain(_share(may_be.sum(1) == 1)),
        "unfamiliar": _plain(_share(joined["unfamiliar"])),
        "interval_width": float(np.median(joined["high"] - joined["low"])),
        "mean_probability": float(joined["probability"].mean()),
        "calibration_slope": _plain(slope.slope),
    }


def _share(of: np.ndarray) -> Interval:
    return wilson(int(of.sum()), len(of))


def vessels(work: Path) -> Result:
    """Test AUC of five seeds of PattenNet and of ResNet-18 on the official split."""
    source, folder = DATA / "medmnist3d" / "vesselmnist3d.npz", work / "vessels"
    command(work / "vessels.json", "cohort", "import", source, folder)
    fold = choose_fold(Cohort.open(folder), None, seed=0)
    outcomes = fold.held_out.outcomes
    chosen = {OURS: patten, TITLES["resnet18"]: baseline}
    runs: dict[str, list[Result]] = {title: [] for title in chosen}
    for seed in VESSEL_SEEDS:
        config = load_config("cpu", overrides=SETTINGS, seed=seed)
        place = work / f"vessels-{seed}"
        place.mkdir(exist_ok=True)
        train_autoencoder(fold, config, place / "autoencoder")
        for title, train in chosen.items():
            print("#", title, "vessels", seed, file=sys.stderr)
            words = ON_MAPS if title == OURS else ()
            runs[title].append(predicted(fold, place, title, train, words, config))
    found: Result = {"n": len(outcomes), "positive": int(outcomes.sum()), "models": {}}
    means = {
        title: np.mean([run["probability"] for run in of], axis=0) for title, of in runs.items()
    }
    for title, of in runs.items():
        values = [delong(outcomes, np.array(run["probability"])).value for run in of]
        found["models"][title] = {
            "seeds": values,
            "mean": float(np.mean(values)),
            "of_mean_probability": _plain(delong(outcomes, means[title])),
            "training_seconds": float(np.median([run["seconds"] for run in of])),
        }
    compared = delong_paired(outcomes, means[OURS], means[TITLES["resnet18"]])
    return found | {"ours_minus_resnet": _plain(compared.interval) | {"p": compared.p_value}}


def _plain(interval: Interval) -> Result:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _text(of: Result, digits: int = 3) -> str:
    return f"{of['value']:.{digits}f} [{of['low']:.{digits}f}, {of['high']:.{digits}f}]"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


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
        f"The true probabilities have AUC {_text(of['ceiling'])}. Seconds: median training of a "
        "fold, without the encoder's."
    )
    yield from [
        "",
        "| model | AUC | PattenNet minus it | p | Brier | s |",
        "|" + "---|" * 6,
    ]
    for title, row in of["models"].items():
        minus = row.get("ours_minus")
        apart = "| | " if minus is None else f"| {_text(minus)} | {_p_value(minus['p'])} "
        yield (
            f"| {title} | {_text(row['auc'])} {apart}| {row['brier']['value']:.3f} "
            f"| {row['training_seconds']:.0f} |"
        )
    if of["missing"]:
        yield from ["", f"Not run within the time: {', '.join(of['missing'])}."]
    sure = of["certainty"]
    yield from ["", "How sure PattenNet says it is, out of fold:", ""]
    for y, share in sure["covered"].items():
        yield f"- its 90 % sets hold {y} in {_text(share)} of those who are {y};"
    yield f"- they hold one class alone in {_text(sure['one_class'])};"
    yield f"- it calls {_text(sure['unfamiliar'])} unfamiliar, of whom none is;"
    yield f"- mean probability {sure['mean_probability']:.3f} where {of['positive'] / of['n']:.3f}"
    yield f"  are positive, calibration slope {_text(sure['calibration_slope'])};"
    yield f"- the median interval is {sure['interval_width']:.2f} wide."
    yield from explained_page(of["explanations"])


def vessels_page(of: Result) -> Iterator[str]:
    yield from ["", "## VesselMNIST3D, official split", ""]
    yield f"{of['n']} test cases, {of['positive']} positive; the mean of five seeds."
    yield from [
        "",
        "| model | mean AUC | seeds | AUC of the mean probability | s |",
        "|" + "---|" * 5,
    ]
    for title, row in of["models"].items():
        seeds = ", ".join(f"{value:.3f}" for value in row["seeds"])
        yield (
            f"| {title} | {row['mean']:.3f} | {seeds} | {_text(row['of_mean_probability'])} "
            f"| {row['training_seconds']:.0f} |"
        )
    minus = of["ours_minus_resnet"]
    yield ""
    yield f"Paired DeLong test of the mean probabilities: {_text(minus)}, p {_p_value(minus['p'])}."


def explained_page(of: Result) -> Iterator[str]:
    yield from ["", "## Where the explanations fall", ""]
    yield (
        f"{of['n']} held-out patients of the first fold; `bench/explanations.py` says what the "
        f"truth is. A map without any knowledge hits in {of['chance']:.3f}, its voxel AUC is 0.5."
    )
    yield from ["", "| map | pointing game | voxel AUC |", "|" + "---|" * 3]
    for name, row in of["maps"].items():
        yield f"| {name} | {_text(row['hits'])} | {_text(row['auc'])} |"


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
