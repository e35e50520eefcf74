"""The command line in this process, a small cohort, and what the commands trained on it."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from neonet3d.cli import main
from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import Volume
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))
SPACING_MM = (6.0, 6.0, 10.0)
SHAPE = (30, 20, 12)
TINY = (
    "roi.shape=[24, 16, 8]",
    "roi.spacing_mm=[6, 6, 10]",
    "segmenter.network=unet",
    "segmenter.localiser_steps=2",
    "segmenter.channels=[8, 16]",
    "segmenter.patch=[24, 16, 8]",
    "segmenter.loop.steps=2",
    "autoencoder.channels=8",
    "autoencoder.latent_channels=4",
    "autoencoder.loop.steps=2",
    "autoencoder.loop.batch_size=2",
    "unet.channels=[16, 16]",
    "unet.loop.steps=2",
    "unet.loop.batch_size=2",
    "controlnet.loop.steps=2",
    "detail.loop.steps=2",
    "detail.channels=8",
    "controlnet.loop.batch_size=2",
    "masks.autoencoder.channels=8",
    "masks.autoencoder.loop.steps=150",
    "masks.autoencoder.loop.batch_size=2",
    "masks.flow.channels=[16, 16]",
    "masks.flow.loop.steps=40",
    "masks.flow.loop.batch_size=2",
    "masks.steps=2",
    "masks.start=1.0",
    "masks.volume_factor=1.0e+9",
    "sampler.steps=2",
    "balance.adherence_quantile=0",
    "balance.attempts=200",
    "classifier.channels=8",
    "classifier.encodings=2",
    "classifier.loop.steps=2",
    "baseline.width=0.25",
    "baseline.loop.steps=2",
    "study.folds=2",
)
OPTIONS = ("--preset", "demo", *(part for override in TINY for part in ("--set", override)))


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, Any]:
        """stdout as JSON, and as nothing else; nan is none."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        assert self.status == 0, self.stderr
        return dict(json.loads(self.stdout, parse_constant=refuse))


Run = Callable[..., Outcome]


def _run(*arguments: object) -> Outcome:
    def leave(status: int) -> None:
        raise SystemExit(status)

    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["neonet3d", *map(str, arguments)]),
        patch.object(os, "_exit", leave),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    status = stopped.value.code
    assert isinstance(status, int)
    return Outcome(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def run() -> Run:
    """Run ``neonet3d`` with these arguments; exit status, stdout and stderr come back."""
    return _run


@pytest.fixture(scope="session")
def tiny_options() -> tuple[str, ...]:
    """A configuration that trains two steps."""
    return OPTIONS


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Eight patients that are alike but for noise, every second one positive."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    label_map[(x / 80) ** 2 + (y / 55) ** 2 + (z / 50) ** 2 < 1] = 1
    label_map[np.sqrt((x - 10) ** 2 + y**2 + z**2) < 22] = 2
    anatomy = np.array([20, 100, 60])[label_map] + np.random.default_rng(0).normal(0, 8, SHAPE)
    root = tmp_path_factory.mktemp("cli") / "scans"
    writer = CohortWriter(root, SCHEMA, outcome_name="pni", channel="HBP", durable=False)
    affine = np.diag([*SPACING_MM, 1.0])
    for index in range(8):
        noise = np.random.default_rng(1 + index).normal(0, 0.5, SHAPE)
        image = np.clip(anatomy + noise, 1, None).astype(np.float32)
        writer.add(
            f"case_{index}", Volume(image, affine), Volume(label_map, affine), outcome=index % 2
        )
    return writer.finish()


@dataclass(frozen=True)
class Trained:
    """Folders that ``crop``, ``segment train`` and ``generate train`` wrote for fold 0 of 2."""

    crops: Path
    segmenter: Path
    generator: Path


@pytest.fixture(scope="session")
def trained(scans: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trained")
    made = Trained(root / "crops", root / "segmenter", root / "generator")
    for arguments in (
        ("crop", scans.root, made.crops),
        ("segment", "train", scans.root, made.segmenter, "--fold", "0/2"),
        ("generate", "train", made.crops, made.generator, "--fold", "0/2"),
    ):
        done = _run(*arguments, *OPTIONS)
        assert done.status == 0, done.stderr
    return made
