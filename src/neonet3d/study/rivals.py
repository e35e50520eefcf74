"""NeoGen beside its rivals: the same cases, the same seconds, the same held-out masks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor

from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import Patches, load_patches
from neonet3d.config import Config, NetworkName, fingerprint
from neonet3d.engine.artefact import read_card
from neonet3d.engine.clock import read_seconds
from neonet3d.engine.run import STATE, once
from neonet3d.generation.evaluate import (
    both_planes,
    compare_planes,
    tell_apart,
    tell_slices_apart,
)
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.rivals import build_rival
from neonet3d.generation.rivals.budget import RivalFailedError
from neonet3d.metrics.diversity import pairwise_ms_ssim
from neonet3d.metrics.interval import Interval, bootstrap_mean
from neonet3d.metrics.overlap import dice
from neonet3d.segmentation.patch_segmenter import LabelledPatches, PatchSegmenter, patch_plan
from neonet3d.study.augmentation_results import GeneratorRow
from neonet3d.types import LabelSchema

OURS = "neogen"
JUDGE: NetworkName = "unet"  # reads the images of all generators; the best at veins in few steps
PARTS = ("autoencoder", "unet", "controlnet", "detail")  # of ours, whose steps are told


@dataclass(frozen=True)
class Arena:
    """What all generators get.

    Attributes:
        training, held_out: patches on the grid of ours, and its intensities.
        seconds: that ours trained for, by the wall clock.
        key: changes when any of that does.
    """

    training: Patches
    held_out: Patches
    participants: tuple[str, ...]
    schema: LabelSchema
    generator: LatentGenerator
    generator_folder: Path
    seconds: float
    config: Config
    key: str

    @classmethod
    def of(cls, fold: Fold, generator: LatentGenerator, folder: Path, config: Config) -> Arena:
        """Of the fold that ours was trained on, in ``folder/generator``."""
        card, seconds = generator.card, read_seconds(folder / "seconds.json")
        training, held_out = (
            load_patches(cohort, *card.reading) for cohort in (fold.training, fold.held_out)
        )
        return cls(
            training=training,
            held_out=held_out,
            participants=tuple(case.participant for case in fold.held_out),
            schema=fold.training.schema,
            generator=generator,
            generator_folder=folder / "generator",
            seconds=seconds,
            config=config,
            key=fingerprint(
                card.weights_sha256, (folder / "patches" / ".done").read_text(), seconds
            ),
        )

    @property
    def labelled(self) -> bool:
        return self.generator.card.outcome is not None

    @property
    def outcomes(self) -> Tensor:
        """Of the held-out cases, as far as ours was told of outcomes."""
        wanted = self.held_out.outcomes
        return wanted if self.labelled else torch.full_like(wanted, -1)


def compare_generators(
    arena: Arena, folder: Path
) -> tuple[tuple[GeneratorRow, ...], dict[str, str], dict[str, Interval]]:
    """Train every rival, draw for the held-out masks, measure.

    Returns:
        Ours and the rivals; why a rival is not among them; Dice of the judge on real images.
    """
    judge = _judge(arena, folder / "judge")
    rows, failed = [_row(arena, judge, OURS, _drawn(arena, OURS, folder / OURS, _ours))], {}
    for name in arena.config.augmentation_study.rivals:
        try:
            rows.append(_row(arena, judge, name, _drawn(arena, name, folder / name, _rival)))
        except RivalFailedError as error:
            failed[name] = str(error)
    return tuple(rows), failed, _adherence(arena, judge, arena.held_out.images)


@dataclass(frozen=True)
class _Drawn:
    """Images for the held-out masks, and what it took."""

    images: Float[Tensor, "n x y z"]
    seconds: float
    sampling_seconds: float
    steps: dict[str, int]

    def facts(self) -> dict[str, Any]:
        """All but the images."""
        return {
            "seconds": self.seconds,
            "sampling_seconds": self.sampling_seconds,
            "steps": self.steps,
        }


def _ours(arena: Arena, name: str) -> _Drawn:
    maps = arena.held_out.required_label_maps()
    started = time.monotonic()
    images = arena.generator.sample(
        maps,
        arena.outcomes,
        **arena.config.sampler.model_dump(),
        seed=arena.config.seed,
        log_scale=arena.held_out.log_scale,
    )
    took = (time.monotonic() - started) / len(maps)
    steps = {
        part: int(read_card(arena.generator_folder / part).config["loop"]["steps"])
        for part in PARTS
    }
    return _Drawn(images, arena.seconds, took, steps)


def _rival(arena: Arena, name: str) -> _Drawn:
    shape, n_classes = arena.training.shape, len(arena.schema)
    rival = build_rival(name, shape, n_classes, labelled=arena.labelled)
    record = rival.fit(arena.training, seconds=arena.seconds, seed=arena.config.seed)
    maps = arena.held_out.required_label_maps()
    started = time.monotonic()
    images = rival.sample(maps, arena.outcomes, seed=arena.config.seed)
    took = (time.monotonic() - started) / len(maps)
    return _Drawn(images, record.seconds, took, record.steps)


def _drawn(arena: Arena, name: str, folder: Path, draw: Callable[[Arena, str], _Drawn]) -> _Drawn:
    """From the folder, which keeps it; a failure too, since the same seed would fail again."""

    def build(out: Path) -> None:
        try:
            drawn = draw(arena, name)
        except RivalFailedError as error:
            (out / "failed.txt").write_text(str(error))
            return
        save_file({"images": drawn.images.contiguous()}, out / "images.safetensors")
        (out / "facts.json").write_text(json.dumps(drawn.facts()))

    once(folder, fingerprint(arena.key, name), build)
    if (folder / "failed.txt").is_file():
        raise RivalFailedError((folder / "failed.txt").read_text())
    images = load_file(folder / "images.safetensors")["images"]
    return _Drawn(images=images, **json.loads((folder / "facts.json").read_text()))


def _row(arena: Arena, judge: PatchSegmenter, name: str, drawn: _Drawn) -> GeneratorRow:
    synthetic, seed = replace(arena.held_out, images=drawn.images), arena.config.seed
    planes, cases = both_planes(arena.held_out, synthetic), np.array(arena.participants)
    apart, _ = tell_apart(arena.held_out, synthetic, arena.schema.names, cases, cases, seed=seed)
    return GeneratorRow(
        key=name,
        fidelity=compare_planes(*planes, cases, cases, seed=seed),
        two_sample=apart,
        two_sample_slices=tell_slices_apart(*planes, cases, cases, seed=seed),
        ms_ssim=pairwise_ms_ssim(drawn.images, seed),
        adherence=_adherence(arena, judge, drawn.images),
        **drawn.facts(),
    )


def _judge(arena: Arena, folder: Path) -> PatchSegmenter:
    """A segmenter of the real training cases."""
    settings, grid = arena.config.augmentation_study, arena.generator.card.grid
    plan = patch_plan(JUDGE, grid, settings.width, arena.config.segmenter)
    judge = PatchSegmenter(plan, grid, len(arena.schema), seed=arena.config.seed)

    def build(out: Path) -> None:
        judge.train(
            LabelledPatches(arena.training.images, arena.training.required_label_maps()),
            settings.loop,
            out / STATE,
            seed=arena.config.seed,
            description="judge",
        )
        save_model(judge.network, str(out / "model.safetensors"))

    once(folder, fingerprint(arena.key, plan, settings.loop), build)
    load_model(judge.network, folder / "model.safetensors")
    return judge


def _adherence(
    arena: Arena, judge: PatchSegmenter, images: Float[Tensor, "n x y z"]
) -> dict[str, Interval]:
    """Mean Dice of the judge's reading against the held-out masks."""
    labels = {name: value for name, value in arena.schema.as_mapping().items() if value > 0}
    found, maps = judge.segment(images).numpy(), arena.held_out.required_label_maps().numpy()
    scores = [dice(a, b, labels) for a, b in zip(found, maps, strict=True)]
    return {
        name: bootstrap_mean(np.array([score[name] for score in scores]), arena.config.seed)
        for name in labels
    }
