"""The two cohorts that ``bench/generator.py`` works on, with their folds."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from phantom_audit import N_SMALL, TRAIN_SEED
from segmentation import DATA, command

from neonet3d.cli.options import training_fold
from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.phantom.patient import simulate_roi
from neonet3d.cohort.phantom.writer import PHANTOM_CLASSES, SEED_STRIDE
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config

N_HELD_OUT = 64


def write_phantoms(config: Config, out: Path, seed: int, n: int) -> Path:
    """Regions of interest of n phantom patients as a cohort."""
    if not out.is_dir():
        roi = config.roi
        work = partial(simulate_roi, shape=roi.shape, spacing_mm=roi.spacing_mm)
        affine = np.diag([*roi.spacing_mm, 1.0])
        with (
            ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool,
            new_folder(out) as folder,
        ):
            writer = CohortWriter(
                folder, PHANTOM_CLASSES, outcome_name="pni", channel="HBP", durable=False
            )
            for i, made in enumerate(
                pool.map(work, range(seed * SEED_STRIDE, seed * SEED_STRIDE + n))
            ):
                pair = (Volume(x, affine) for x in (made.image, made.label_map))
                writer.add(f"p{i:04d}", *pair, outcome=int(made.pni))
            writer.finish()
    return out


def cohorts(config: Config, work: Path, cases: int | None) -> dict[str, tuple[Path, Path]]:
    """Name to cohort folder and splits file."""
    hippocampus = work / "hippocampus"
    command(work / "import.json", "cohort", "import", DATA / "Task04_Hippocampus", hippocampus)
    n = N_SMALL + N_HELD_OUT
    folders = {
        "phantom": write_phantoms(config, work / "rois", TRAIN_SEED, n),
        "hippocampus": hippocampus,
    }
    found = {}
    for name, folder in folders.items():
        if name == "phantom":
            names = [case.name for case in Cohort.open(folder)]
            train, held_out = names[:N_SMALL], names[N_SMALL:]
        else:
            fold = training_fold(folder, "0/5", config.seed)
            train, held_out = ([c.name for c in part] for part in (fold.training, fold.held_out))
        splits = work / f"{name}-splits.json"
        splits.write_text(json.dumps([{"train": train[:cases], "val": held_out[:cases]}]))
        found[name] = folder, splits
    return found
