"""VesselMNIST3D, official split, for ``bench/classification.py``: PattenNet beside a ResNet-18.

PattenNet reads the encoder's maps and signed distances to the vessel, with the training cases alone
and with a generator's 1:1 balance; each model is trained with five seeds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from classification_models import (
    ON_MAPS,
    OURS,
    SETTINGS,
    Result,
    Train,
    baseline,
    p_value,
    patten,
    plain,
    predicted,
    text,
)
from segmentation import DATA, command

from neonet3d.classification.networks import TITLES
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.folds import Fold, choose_fold
from neonet3d.config import Config, load_config
from neonet3d.generation.balance import balance_cohort
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.train import train_generator
from neonet3d.metrics.discrimination import delong, delong_paired

SEEDS = range(5)
ON_SHAPES = (*ON_MAPS, "classifier.masks_as_channels=true", "classifier.loop.steps=700")
BALANCED = ("balance.masks=same",)  # of a vessel the shape says nearly all of the outcome


def vessels(work: Path) -> Result:
    """Test AUC of five seeds of PattenNet and of ResNet-18 on the official split.

    One generator for all seeds; its autoencoder is PattenNet's encoder.
    """
    source, folder = DATA / "medmnist3d" / "vesselmnist3d.npz", work / "vessels"
    command(work / "vessels.json", "cohort", "import", source, folder)
    fold = choose_fold(Cohort.open(folder), None, seed=0)
    config = load_config("cpu", overrides=[*SETTINGS, *BALANCED], seed=0)
    place = work / "vessels-generator"
    seconds = once_timed(place / "seconds.json", lambda: train_generator(fold, config, place))
    outcomes = fold.held_out.outcomes
    chosen: dict[str, tuple[Train, Fold, tuple[str, ...]]] = {
        OURS: (patten, fold, ON_SHAPES),
        f"{OURS}, synthetic cases to 1:1": (patten, balanced(fold, place, config), ON_SHAPES),
        TITLES["resnet18"]: (baseline, fold, ()),
    }
    runs: dict[str, list[Result]] = {title: [] for title in chosen}
    for seed in SEEDS:
        of_seed = work / f"vessels-{seed}"
        of_seed.mkdir(exist_ok=True)
        for title, (train, part, words) in chosen.items():
            print("#", title, "vessels", seed, file=sys.stderr)
            settings = load_config("cpu", overrides=SETTINGS, seed=seed)
            runs[title].append(predicted(part, place, of_seed, title, train, words, settings))
    found: Result = {"n": len(outcomes), "positive": int(outcomes.sum()), "models": {}}
    means = {
        title: np.mean([run["probability"] for run in of], axis=0) for title, of in runs.items()
    }
    for title, of in runs.items():
        values = [delong(outcomes, np.array(run["probability"])).value for run in of]
        found["models"][title] = {
            "seeds": values,
            "mean": float(np.mean(values)),
            "of_mean_probability": plain(delong(outcomes, means[title])),
            "training_seconds": float(np.median([run["seconds"] for run in of])),
        }
    found["generator_seconds"] = seconds
    found["ours_minus"] = {}
    for title, of_title in means.items():
        if title != OURS:
            compared = delong_paired(outcomes, means[OURS], of_title)
            found["ours_minus"][title] = plain(compared.interval) | {"p": compared.p_value}
    return found


def balanced(fold: Fold, generator: Path, config: Config) -> Fold:
    """The fold with synthetic cases to 1:1; without a tumour nothing reads them back."""
    out = generator / "balanced"
    if not (out / "dataset.json").is_file():
        with new_folder(out) as folder:
            balance_cohort(
                fold.training,
                LatentGenerator.load(generator),
                None,
                folder,
                config.balance,
                config.sampler,
                seed=config.seed,
            )
    return Fold(fold.name, Cohort.open(out), fold.held_out)


def once_timed(kept: Path, train: Callable[[], object]) -> float:
    """Seconds of a training that is done once."""
    if not kept.is_file():
        started = time.perf_counter()
        train()
        kept.write_text(json.dumps(time.perf_counter() - started))
    return float(json.loads(kept.read_text()))


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
            f"| {title} | {row['mean']:.3f} | {seeds} | {text(row['of_mean_probability'])} "
            f"| {row['training_seconds']:.0f} |"
        )
    yield ""
    for title, minus in of["ours_minus"].items():
        yield f"PattenNet minus {title}, paired DeLong test of the mean probabilities: "
        yield f"{text(minus)}, p {p_value(minus['p'])}."
    yield f"The generator trained for {of['generator_seconds']:.0f} s."
