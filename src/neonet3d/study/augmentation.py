"""The 3D-LLDM experiment (arXiv 2603.23845): rivals, fidelity, and what synthetic cases add.

One division into a pool and held-out patients. Of the pool the first 8, 16, ... cases of a random
order are "all the real cases there are": a generator is trained on them and on nothing else, and so
is every segmenter of that number. Held-out cases are real and are only segmented.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import GRID_MULTIPLE, Patches, fit_patches, load_patches
from neonet3d.cohort.volume import write_atomically
from neonet3d.config import Config, LoopConfig, fingerprint
from neonet3d.engine.clock import kept_seconds
from neonet3d.engine.device import SHORTEST_X, device_summary
from neonet3d.engine.jobs import run_jobs
from neonet3d.engine.log import stage_seconds
from neonet3d.engine.run import RESULTS, RunFolder, once
from neonet3d.errors import InputError
from neonet3d.generation.audit import audit_copying
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.masks import deform_mask
from neonet3d.generation.rivals import build_rival
from neonet3d.generation.train import train_generator
from neonet3d.metrics.diversity import pairwise_ms_ssim
from neonet3d.metrics.features import require_extractor
from neonet3d.segmentation.patch_segmenter import LabelledPatches, patch_plan
from neonet3d.study.augmentation_arms import (
    PatchFacts,
    PatchSet,
    Scores,
    Training,
    study_arms,
    study_names,
    train_and_score,
)
from neonet3d.study.augmentation_results import AugmentationResults
from neonet3d.study.augmentation_table import Key, tabulate, worth_of
from neonet3d.study.requirements import require_one_scan_each
from neonet3d.study.rivals import PARTS, Arena, compare_generators

LEAST_HELD_OUT = 4


def run_augmentation_study(fold: Fold, run: RunFolder, *, title: str) -> AugmentationResults:
    """Repeat both tables of the paper; ``results.json`` goes to the run folder.

    Args:
        fold: pool and held-out patches with masks.

    Raises:
        InputError: fewer cases in the pool than the largest number asks for, too few held-out
            cases, cases without masks, several scans of a patient, a package that is missing, or a
            rival that cannot be built for them.
    """
    config, settings = run.config, run.config.augmentation_study
    require_extractor()
    pool, numbers = fold.training, sorted(settings.real_cases)
    require_one_scan_each((*pool, *fold.held_out), pool.root)
    if numbers[-1] > len(pool) or len(fold.held_out) < LEAST_HELD_OUT:
        raise InputError(
            f"The study wants {numbers[-1]} real cases and at least {LEAST_HELD_OUT} to hold out, "
            f"but the fold has {len(pool)} and {len(fold.held_out)}. "
            "Lower augmentation_study.real_cases, or add cases."
        )
    run.update_manifest(
        cohort=str(pool.root.resolve()),
        data_hash=fingerprint(sorted(c.digest() for c in (*pool, *fold.held_out))),
    )
    order = np.random.default_rng(config.seed).permutation(len(pool))
    _require_rivals(pool.subset(pool.cases[i] for i in order[: numbers[-1]]), config)
    trainings: dict[Key, list[Training]] = {}
    holds: dict[int, dict[str, np.ndarray]] = {}
    for n in numbers:
        part = pool.subset(pool.cases[i] for i in order[:n])
        number = Fold(f"n-{n:03d}", part, fold.held_out)
        with run.timed("train generators"):
            _train_generator(number, config, run.path / number.name)
        with run.timed("draw synthetic cases"):
            _write_patches(number, config, run.path / number.name)
        holds[n] = PatchSet(run.path / number.name / "patches").holds()
        for training in _trainings(run.path / number.name, config):
            key = (training.network, training.arm.key, n)
            trainings.setdefault(key, []).append(training)
    with run.timed("train segmenters"):
        everything = [training for of in trainings.values() for training in of]
        run_jobs(train_and_score, everything, description="segmenters")
    # ``number`` is now the largest.
    generator = LatentGenerator.load(run.path / number.name / "generator")
    arena = Arena.of(number, generator, run.path / number.name, config)
    with run.timed("compare generators"):
        rows, failed, of_real = compare_generators(arena, run.path / "generators")
    scores = {
        key: [Scores.read(training.folder / "scores.csv") for training in of]
        for key, of in trainings.items()
    }
    arms = study_arms(settings)
    cells = tabulate(scores, holds, seed=config.seed)
    copying = audit_copying(generator, number.training, fold.held_out, seed=config.seed)
    results = AugmentationResults(
        title=title,
        classes=pool.schema.names[1:],
        n_pool=numbers[-1],
        n_held_out=len(fold.held_out),
        seeds=settings.seeds,
        steps=settings.loop.steps,
        arms={arm.key: arm.title for arm in arms},
        adherence_of_real=of_real,
        ms_ssim_of_real=pairwise_ms_ssim(arena.held_out.images, config.seed),
        membership=None if copying.membership is None else copying.membership.auc,
        generators=rows,
        failed=failed,
        cells=cells,
        worth=worth_of(cells, arms),
        seconds=stage_seconds(run.path / "log.jsonl"),
    )
    write_atomically(run.path / RESULTS, (results.model_dump_json(indent=1) + "\n").encode())
    return results


def _require_rivals(cases: Cohort, config: Config) -> None:
    """Build each rival for the grid that the generator will have: they train hours later.

    Raises:
        InputError: an unknown rival, one that cannot draw such patches or whose package is missing.
    """
    grid, _ = fit_patches(cases, shortest=SHORTEST_X * GRID_MULTIPLE)
    for name in config.augmentation_study.rivals:
        build_rival(name, grid.shape, len(cases.schema), labelled=cases.outcome_name is not None)


def scaled(config: Config) -> Config:
    """The generator's loops, shortened by ``generator_share``; all but the autoencoder's.

    That one learns no cases by heart, and what it blurs no later part brings back.
    """

    def shorter(loop: LoopConfig) -> LoopConfig:
        steps = max(1, round(loop.steps * config.augmentation_study.generator_share))
        return loop.model_copy(update={"steps": steps})

    sections = {name: getattr(config, name) for name in PARTS if name != "autoencoder"}
    return config.model_copy(
        update={
            name: section.model_copy(update={"loop": shorter(section.loop)})
            for name, section in sections.items()
        }
    )


def _write_patches(number: Fold, config: Config, folder: Path) -> None:
    """Real, synthetic and held-out patches of one number of real cases."""
    generator = LatentGenerator.load(folder / "generator")
    settings, card = config.augmentation_study, generator.card
    card.refuse_training_cases(number.held_out)
    key = fingerprint(
        "patches",
        card.weights_sha256,
        [(case.digest(), case.participant) for case in number.held_out],
        number.training.said_of_all,
        settings.ratios,
        config.sampler,
        config.seed,
    )

    def build(out: Path) -> None:
        real = load_patches(number.training, *card.reading)
        held_out = load_patches(number.held_out, *card.reading)
        PatchSet(out).write(
            _labelled(real),
            draw_cases(generator, real, round(max(settings.ratios) * len(real)), config),
            _labelled(held_out),
            PatchFacts(
                cases=tuple((case.name, case.participant) for case in number.held_out),
                labels={k: v for k, v in number.training.schema.as_mapping().items() if v > 0},
                shape=card.grid.shape,
                spacing_mm=card.grid.spacing_mm,
            ),
        )

    once(folder / "patches", key, build)


def draw_cases(
    generator: LatentGenerator, real: Patches, n: int, config: Config
) -> LabelledPatches:
    """n synthetic cases on deformed masks of the real ones, each with its case's outcome.

    The cases take turns, so the first half of twice as many is on the same masks.
    """
    rng, schema = np.random.default_rng(config.seed), generator.card.schema_
    rows = np.arange(n) % len(real)
    maps = real.required_label_maps().numpy()
    deformed = [deform_mask(maps[row], schema, generator.card.grid.spacing_mm, rng) for row in rows]
    drawn = torch.from_numpy(np.stack(deformed))
    outcomes = real.outcomes[rows] if generator.card.outcome else torch.full((n,), -1)
    images = generator.sample(
        drawn,
        outcomes,
        **config.sampler.model_dump(),
        seed=config.seed,
        log_scale=real.log_scale[rows],
    )
    return LabelledPatches(images, drawn)


def _trainings(folder: Path, config: Config) -> Iterator[Training]:
    patches, settings = folder / "patches", config.augmentation_study
    made, grid = (patches / ".done").read_text(), PatchSet(patches).facts().grid
    for network, arm, seed in study_names(settings):
        plan = patch_plan(network, grid, settings.width, config.segmenter)
        augmentation = config.segmenter.augmentation
        of_arm = (arm.real, arm.ratio, augmentation if arm.classic else None)
        yield Training(
            folder=folder / "segmenters" / network / f"{arm.key}-{seed}",
            key=fingerprint(made, plan, settings.loop, *of_arm, seed),
            patches=patches,
            network=network,
            arm=arm,
            seed=seed,
            plan=plan,
            loop=settings.loop,
            augmentation=augmentation,
        )


def _labelled(patches: Patches) -> LabelledPatches:
    return LabelledPatches(patches.images, patches.required_label_maps())


def _train_generator(number: Fold, config: Config, folder: Path) -> None:
    """And keep its seconds, over all starts of the run, for the rivals."""
    settings = scaled(config)
    key = fingerprint(
        "generator",
        [case.digest() for case in number.training],
        *(getattr(settings, part) for part in PARTS),
        settings.sampler,
        config.seed,
        version("neonet3d"),
        device_summary(),
    )
    with kept_seconds(folder / "seconds.json", key):
        train_generator(number, settings, folder / "generator")
