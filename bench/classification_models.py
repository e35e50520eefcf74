"""One model of one fold for ``classification.py`` and ``vessels.py``: trained once and kept."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neonet3d.classification.predict import Classifier
from neonet3d.classification.train import train_patten
from neonet3d.classification.train_baseline import train_baseline
from neonet3d.classification.train_radiomics import train_radiomics
from neonet3d.cohort.folds import Fold
from neonet3d.config import Config, load_config
from neonet3d.engine.artefact import read_card
from neonet3d.metrics.interval import Interval

Result = dict[str, Any]
Train = Callable[[Fold, Path, Path, Config], None]

SETTINGS = os.environ.get("SETTINGS", "").split()
OURS = "PattenNet"
ON_MAPS = ("classifier.features=maps", "classifier.readings=[deep]")


def patten(fold: Fold, encoder: Path, out: Path, config: Config) -> None:
    train_patten(fold, encoder, config, out)


def baseline(fold: Fold, encoder: Path, out: Path, config: Config) -> None:
    train_baseline(fold, read_card(encoder).reading, config, out)


def radiomics(fold: Fold, encoder: Path, out: Path, config: Config) -> None:
    train_radiomics(fold, read_card(encoder).reading, config, out)


def slug(title: str) -> str:
    return title.replace(",", "").replace(" ", "-").lower()


def kept_in(work: Path, title: str) -> Path:
    return work / f"{slug(title)}.json"


def predicted(
    fold: Fold,
    models: Path,
    work: Path,
    title: str,
    train: Train,
    words: tuple[str, ...],
    config: Config,
) -> Result:
    """Held-out probabilities of one model of one fold, and the seconds of its training.

    Args:
        models: folder of the fold's autoencoder.
    """
    folder, kept = work / slug(title), kept_in(work, title)
    if not kept.is_file():
        started = time.perf_counter()
        settings = load_config("cpu", overrides=[*SETTINGS, *words], seed=config.seed)
        train(fold, models / "autoencoder", folder, settings)
        found: Result = {"seconds": time.perf_counter() - started}
        classifier = Classifier.load(folder)
        if classifier.card.kind == "PattenNet":
            sure = classifier.assess(fold.held_out)
            found |= {key: value.tolist() for key, value in vars(sure).items()}
        else:
            found["probability"] = classifier.predict(fold.held_out).tolist()
        kept.write_text(json.dumps(found))
    return json.loads(kept.read_text())


def plain(interval: Interval) -> Result:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def text(of: Result, digits: int = 3) -> str:
    return f"{of['value']:.{digits}f} [{of['low']:.{digits}f}, {of['high']:.{digits}f}]"


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
