"""A cohort of spheres and tubes on a coarse grid, and a configuration that trains two steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config, load_config
from neonet3d.engine.run import RunFolder
from neonet3d.report.html import write_report
from neonet3d.study.pni import run_pni_study
from neonet3d.study.results import StudyResults
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "portal_vein", "hepatic_vein", "tumour"))
SPACING_MM = (6.0, 6.0, 10.0)
SHAPE = (30, 24, 12)
SIGNAL = np.array([20, 100, 140, 70, 60], dtype=np.float32)
TINY = (
    "roi.shape=[24, 16, 8]",
    "roi.spacing_mm=[6, 6, 10]",
    "segmenter.network=unet",
    "segmenter.localiser_steps=2",
    "segmenter.channels=[8, 16]",
    "segmenter.patch=[24, 24, 8]",
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


def draw_patient(index: int) -> tuple[Volume, Volume]:
    """A liver with two veins and a tumour.

    Patients 0 to 5 are alike but for a little noise, since the quality gate refuses what is nearer
    to a patient than the nearest two patients are to each other.
    """
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    shift = 12.0 * max(0, index - 5)
    label_map = np.zeros(SHAPE, dtype=np.uint8)
    label_map[(x / 80) ** 2 + (y / 60) ** 2 + (z / 50) ** 2 < 1] = 1
    label_map[(np.hypot(y - 10, z) < 8) & (np.abs(x) < 60)] = 2
    label_map[(np.hypot(x + 30, z - 10) < 8) & (np.abs(y) < 45)] = 3
    label_map[np.sqrt((x - 10 - shift) ** 2 + (y + 12) ** 2 + z**2) < 22] = 4
    noise = np.random.default_rng(max(0, index - 5)).normal(0, 8, SHAPE)
    noise += np.random.default_rng(100 + index).normal(0, 0.5, SHAPE)
    image = np.clip(SIGNAL[label_map] + noise, 1, None).astype(np.float32)
    affine = np.diag([*SPACING_MM, 1.0])
    return Volume(image, affine), Volume(label_map, affine)


def write_cohort(root: Path) -> Cohort:
    writer = CohortWriter(root, SCHEMA, outcome_name="pni", channel="HBP", durable=False)
    for index in range(8):
        image, mask = draw_patient(index)
        writer.add(f"case_{index}", image, mask, outcome=index % 2)
    return writer.finish()


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Eight patients, every second one positive."""
    return write_cohort(tmp_path_factory.mktemp("study") / "scans")


@pytest.fixture(scope="session")
def tiny() -> Config:
    return load_config("demo", overrides=TINY)


@pytest.fixture(scope="session")
def tiny_overrides() -> tuple[str, ...]:
    return TINY


@pytest.fixture(scope="session")
def finished(
    scans: Cohort, tiny: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, StudyResults]:
    """A complete run of the study with its report; tests must leave it as it is."""
    path = tmp_path_factory.mktemp("run") / "run"
    with RunFolder.open(path, tiny, study="pni", command="neonet3d study pni") as run:
        results = run_pni_study(scans, run, title="Spheres")
        write_report(path)
    return path, results
