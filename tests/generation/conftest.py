"""A generator trained for a few steps on a few small patients, shared by every test here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config, load_config
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.mask_train import train_mask_generator
from neonet3d.generation.train import train_generator
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "portal_vein", "tumour"))
SHAPE, SPACING_MM = (24, 16, 16), (2.0, 2.0, 2.0)


@dataclass(frozen=True)
class Trained:
    """A generator, and what it was trained with."""

    generator: LatentGenerator
    folder: Path
    fold: Fold
    config: Config


def tiny(seed: int) -> Config:
    parts = ("autoencoder", "unet", "controlnet", "detail", "masks.autoencoder", "masks.flow")
    loops = [f"{part}.loop.steps=3" for part in parts]
    return load_config(
        "demo",
        overrides=[
            *loops,
            "autoencoder.channels=8",
            "autoencoder.latent_channels=4",
            "autoencoder.loop.batch_size=2",
            "detail.channels=8",
            "unet.channels=[8,16]",
            "unet.loop.batch_size=2",
            "controlnet.loop.batch_size=2",
            "masks.autoencoder.channels=8",
            "masks.autoencoder.loop.batch_size=2",
            "masks.flow.channels=[8,16]",
            "masks.flow.loop.batch_size=2",
            "masks.steps=2",
            "masks.volume_factor=1.0e+9",  # three steps obey no volume
            "sampler.steps=2",
        ],
        seed=seed,
    )


def write_patients(root: Path, outcomes: tuple[int, ...]) -> Cohort:
    """Dark air, a liver of 100, a vein one voxel wide of 160, a tumour of 50 somewhere in it."""
    rng = np.random.default_rng(11)
    writer = CohortWriter(root, SCHEMA, outcome_name="pni", channel="HBP", durable=False)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    affine = np.diag([*SPACING_MM, 1.0])
    for number, outcome in enumerate(outcomes):
        mask = np.zeros(SHAPE, np.uint8)
        mask[(((index - [11.5, 7.5, 7.5]) / [11, 7, 7]) ** 2).sum(-1) < 1] = 1
        mask[4:20, 4, 8] = 2
        centre = np.array([11.5, 9.0, 7.5]) + rng.uniform(-2, 2, 3)
        mask[((index - centre) ** 2).sum(-1) < 3.5**2] = 3
        image = np.array([10.0, 100.0, 160.0, 50.0])[mask] + rng.normal(0, 4, SHAPE)
        writer.add(
            f"patient_{number}",
            Volume(image.clip(0).astype(np.float32), affine),
            Volume(mask, affine),
            outcome=outcome,
        )
    return writer.finish()


@pytest.fixture(scope="session")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_patients(tmp_path_factory.mktemp("patients") / "cohort", (0, 0, 0, 0, 1, 1))


@pytest.fixture(scope="session")
def tiny_config() -> Callable[[int], Config]:
    return tiny


@pytest.fixture(scope="session")
def train_tiny(
    patients: Cohort, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Trained]:
    """Trains with a seed, once for each."""
    made: dict[int, Trained] = {}

    def train(seed: int) -> Trained:
        if seed not in made:
            folder = tmp_path_factory.mktemp(f"generator-{seed}") / "generator"
            fold = Fold("fold-0", patients, patients.subset([]))
            generator = train_generator(fold, tiny(seed), folder)
            train_mask_generator(fold, tiny(seed), folder / "masks")
            made[seed] = Trained(generator, folder, fold, tiny(seed))
        return made[seed]

    return train


@pytest.fixture(scope="session")
def trained(train_tiny: Callable[[int], Trained]) -> Trained:
    return train_tiny(0)
