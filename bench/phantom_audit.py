"""Is the phantom a fair test? Ceiling, what networks reach, and what shortcuts there are.

    python bench/phantom_audit.py OUT.md

Trains on cohorts of one seed and tests on patients of another. Every AUC stands with its n, the
number of runs and an interval. Takes about twenty minutes on two cores.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from phantom_models import classify, segment
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from neonet3d.classification.regions import region_maps
from neonet3d.cohort.phantom.patient import PhantomCase, draw_label, simulate_patient, simulate_roi
from neonet3d.cohort.phantom.writer import PHANTOM_CLASSES, SEED_STRIDE
from neonet3d.config import fingerprint, load_config
from neonet3d.metrics.discrimination import auc
from neonet3d.metrics.interval import bootstrap_mean
from neonet3d.metrics.overlap import dice

N_TEST, N_LARGE, N_SMALL, SMALL_RUNS = 400, 600, 128, 4
TRAIN_SEED, TEST_SEED = 101, 202
STEPS_SMALL, STEPS_LARGE, STEPS_UNET = 400, 800, 400
CEILING_DRAWS = 200_000
RESAMPLES = 1000
TUMOUR = PHANTOM_CLASSES.value("tumour")
SHELL_MM = 8.0
SIGNS = ("sign_cuff", "sign_margin", "sign_duct", "sign_hilum")


@dataclass(frozen=True)
class Cases:
    """Regions of interest of many patients."""

    images: Tensor  # (n, 1, x, y, z), liver median = 1, less 1
    label_maps: Tensor  # (n, x, y, z) uint8
    regions: Tensor  # (n, r, x, y, z): tumour, shell, portal neighbourhood
    outcomes: np.ndarray  # (n,)
    probabilities: np.ndarray  # (n,), Bayes' best
    parameters: dict[str, np.ndarray]

    @property
    def memberships(self) -> Tensor:
        values = range(1, len(PHANTOM_CLASSES))
        return torch.stack([(self.label_maps == value).float() for value in values], dim=1)

    def first(self, rows: slice) -> Cases:
        return Cases(
            self.images[rows],
            self.label_maps[rows],
            self.regions[rows],
            self.outcomes[rows],
            self.probabilities[rows],
            {name: values[rows] for name, values in self.parameters.items()},
        )


def draw_cases(n: int, seed: int, pool: ProcessPoolExecutor) -> Cases:
    roi = load_config("cpu").roi
    work = partial(simulate_roi, shape=roi.shape, spacing_mm=roi.spacing_mm)
    made = list(pool.map(work, [seed * SEED_STRIDE + i for i in range(n)], chunksize=4))
    label_maps = torch.from_numpy(np.stack([case.label_map for case in made]))
    regions = [
        torch.from_numpy(
            region_maps(
                case.label_map, PHANTOM_CLASSES, spacing_mm=roi.spacing_mm, shell_mm=SHELL_MM
            )
        )
        for case in made
    ]
    return Cases(
        torch.from_numpy(np.stack([normalised(case) for case in made])[:, None]),
        label_maps,
        torch.stack(regions)[:, 2:],  # without whole and liver
        np.array([case.pni for case in made]),
        np.array([case.pni_probability for case in made]),
        {key: np.array([c.parameters[key] for c in made]) for key in made[0].parameters},
    )


def normalised(case: PhantomCase) -> np.ndarray:
    liver = np.median(case.image[case.label_map == PHANTOM_CLASSES.value("liver")])
    return (np.clip(case.image / liver, 0, 2) - 1).astype(np.float32)


@dataclass(frozen=True)
class Row:
    """A line of the table: scores of one or more runs on the same test cases."""

    name: str
    n_train: int
    runs: list[np.ndarray]

    def text(self, outcomes: np.ndarray) -> str:
        values = [auc(outcomes, scores) for scores in self.runs]
        low, high = np.quantile(self._resampled(outcomes), [0.025, 0.975])
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        n = self.n_train or "–"
        return (
            f"| {self.name} | {n} | {len(values)} | {np.mean(values):.3f}{spread} "
            f"| [{low:.3f}, {high:.3f}] |"
        )

    def _resampled(self, outcomes: np.ndarray) -> list[float]:
        """Mean AUC over runs on bootstrap samples of the test patients, each class by itself."""
        rng = np.random.default_rng(0)
        classes = [np.flatnonzero(outcomes == value) for value in (0, 1)]
        means = []
        for _ in range(RESAMPLES):
            drawn = np.concatenate([rng.choice(rows, len(rows)) for rows in classes])
            means.append(float(np.mean([auc(outcomes[drawn], run[drawn]) for run in self.runs])))
        return means


def rows(train: Cases, test: Cases) -> Iterator[Row]:
    large, small = slice(0, N_LARGE), [
        slice(i * N_SMALL, (i + 1) * N_SMALL) for i in range(SMALL_RUNS)
    ]  # fmt: skip
    yield Row("ceiling: P(PNI \\| severity)", 0, [test.probabilities])
    signs = [_columns(cases, *SIGNS) for cases in (train, test)]
    yield Row("logistic regression on the four true signs", N_LARGE, [_logistic(signs, train)])

    network = partial(_network, train, test)
    runs = [network(rows, STEPS_SMALL, seed=i) for i, rows in enumerate(small)]
    yield Row("image + mask, region-pooled CNN", N_SMALL, runs)
    yield Row("image + mask, region-pooled CNN", N_LARGE, [network(large, STEPS_LARGE, seed=0)])

    blind = network(large, STEPS_LARGE, seed=0, see="mask")
    yield Row("shortcut: mask only, region-pooled CNN", N_LARGE, [blind])
    outside = network(large, STEPS_LARGE, seed=0, see="background")
    yield Row("shortcut: outside the liver only, CNN", N_LARGE, [outside])
    shapes = [_shape(cases) for cases in (train, test)]
    masks = _logistic(shapes, train)
    yield Row("shortcut: mask features (volumes, surface, veins)", N_LARGE, [masks])
    sizes = [shape[:, :1] for shape in shapes]
    yield Row("shortcut: tumour volume", N_LARGE, [_logistic(sizes, train)])
    place = ("tumour_x_mm", "tumour_y_mm", "tumour_z_mm", "tumour_to_hilum_mm")
    places = [_columns(cases, *place) for cases in (train, test)]
    yield Row("shortcut: tumour position", N_LARGE, [_logistic(places, train)])


def _network(
    train: Cases, test: Cases, rows: slice, steps: int, *, seed: int, see: str = "both"
) -> np.ndarray:
    """Scores of a CNN that sees image and mask, or only the ``mask``, or the ``background``."""

    def seen(cases: Cases) -> tuple[Tensor, Tensor, Tensor]:
        if see == "mask":
            return torch.zeros_like(cases.images), cases.memberships, cases.regions
        if see == "background":
            outside = (cases.label_maps == 0)[:, None].float()
            return (cases.images + 1) * outside - 1, outside, outside
        return cases.images, cases.memberships, cases.regions

    outcomes = torch.from_numpy(train.outcomes[rows]).float()
    return classify(*seen(train.first(rows)), outcomes, seen(test), steps=steps, seed=seed)


def _columns(cases: Cases, *names: str) -> np.ndarray:
    return np.stack([cases.parameters[name] for name in names], axis=1)


def _shape(cases: Cases) -> np.ndarray:
    """Log volume, surface to volume, and share of the veins near the tumour, of each mask."""
    tumour = (cases.label_maps == TUMOUR).numpy()
    volume = tumour.sum((1, 2, 3))
    surface = sum(np.diff(tumour, axis=axis).sum((1, 2, 3)) for axis in (1, 2, 3))
    veins = [(cases.label_maps == value).float().mean((1, 2, 3)).numpy() for value in (1, 2, 3)]
    return np.stack([np.log(volume), surface / volume, *veins], axis=1)


def _logistic(features: list[np.ndarray], train: Cases) -> np.ndarray:
    model = make_pipeline(StandardScaler(), LogisticRegression())
    model.fit(features[0][:N_LARGE], train.outcomes[:N_LARGE])
    return model.predict_proba(features[1])[:, 1]


def segmentation_lines(train: Cases, test: Cases, n: int = 100) -> Iterator[str]:
    found = segment(
        train.images[:N_SMALL],
        train.label_maps[:N_SMALL],
        test.images[:n],
        n_classes=len(PHANTOM_CLASSES),
        steps=STEPS_UNET,
        seed=0,
    ).numpy()
    labels = {name: PHANTOM_CLASSES.value(name) for name in PHANTOM_CLASSES.names[1:]}
    scores = [dice(found[i], test.label_maps[i].numpy(), labels) for i in range(n)]
    for name in labels:
        values = np.array([score[name] for score in scores])
        mean = bootstrap_mean(values, 0)
        yield (
            f"| {name} | {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}] "
            f"| {np.nanstd(values, ddof=1):.3f} | {mean.n} |"
        )


def speed_lines(pool: ProcessPoolExecutor) -> Iterator[str]:
    roi, scan = load_config("cpu").roi, load_config("cpu").phantom
    window = partial(simulate_roi, shape=roi.shape, spacing_mm=roi.spacing_mm)
    coarse = partial(
        simulate_patient, spacing_mm=(3.3, 3.3, 5.0), field_of_view_mm=(316.8, 316.8, 200.0)
    )
    fine = partial(
        simulate_patient, spacing_mm=scan.spacing_mm, field_of_view_mm=scan.field_of_view_mm
    )
    kinds: tuple[tuple[str, Callable[[int], PhantomCase]], ...] = (
        (f"ROI {roi.shape} at {roi.spacing_mm} mm", window),
        ("whole liver at (3.3, 3.3, 5.0) mm", coarse),
        (f"whole liver at {scan.spacing_mm} mm", fine),
    )
    for name, work in kinds:
        list(pool.map(work, range(4)))  # warm
        started = time.perf_counter()
        made = list(pool.map(work, range(100, 124)))
        rate = len(made) / (time.perf_counter() - started)
        here = work(100)  # in this process and in a worker: the same bytes
        same = _digest(here) == _digest(made[0])
        yield f"| {name} | {made[0].image.shape} | {rate:.1f} | {'yes' if same else 'NO'} |"


def _digest(case: PhantomCase) -> str:
    return hashlib.sha256(case.image.tobytes() + case.label_map.tobytes()).hexdigest()


def main(out: str) -> None:
    started = time.perf_counter()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent,
    ).stdout.strip()  # fmt: skip
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        speed = list(speed_lines(pool))
        train = draw_cases(N_LARGE, TRAIN_SEED, pool)
        test = draw_cases(N_TEST, TEST_SEED, pool)
    drawn = [draw_label(seed) for seed in range(CEILING_DRAWS)]
    ceiling = auc(np.array([d.pni for d in drawn]), np.array([d.probability for d in drawn]))
    table = []
    for row in rows(train, test):
        table.append(row.text(test.outcomes))
        print(table[-1], f"{time.perf_counter() - started:.0f} s", flush=True)
    organs = list(segmentation_lines(train, test))
    digest = fingerprint([_array_digest(train), _array_digest(test)])
    new_line = "\n"
    minutes = (time.perf_counter() - started) / 60
    shape = tuple(test.label_maps.shape[1:])
    prevalence = np.mean([d.pni for d in drawn])
    Path(out).write_text(f"""# The phantom, audited

Written by `bench/phantom_audit.py` on {datetime.now(UTC):%F} at commit {commit}, {workers} CPU
cores, {minutes:.0f} minutes. Regions of interest of {shape} voxels, `cpu` preset;
training patients of seed {TRAIN_SEED}, {N_TEST} test patients of seed {TEST_SEED}
({int(test.outcomes.sum())} with PNI); SHA-256 of the data {digest[:16]}.

## What can be known, what a network learns, and what shortcuts give away

Ceiling over {CEILING_DRAWS:,} patients: {ceiling:.3f}; prevalence {prevalence:.3f}.
The interval is that of the mean over runs, 95 % bootstrap over the {N_TEST} test patients;
± is the standard deviation over runs, each on other training patients.

| sees | n train | runs | AUC | 95 % |
|---|---|---|---|---|
{new_line.join(table)}

## What a small U-Net finds

{N_SMALL} training patients, {STEPS_UNET} steps.
Dice with its 95 % bootstrap interval over the test patients.

| class | Dice | sd | n |
|---|---|---|---|
{new_line.join(organs)}

## Speed

{workers} processes, 24 patients each; the same seed gives the same bytes in another process.

| | voxels | patients a second | same bytes |
|---|---|---|---|
{new_line.join(speed)}
""")


def _array_digest(cases: Cases) -> str:
    return hashlib.sha256(
        cases.images.numpy().tobytes() + cases.label_maps.numpy().tobytes()
    ).hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
