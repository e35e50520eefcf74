"""Patches of spheres on a small grid, a configuration of two steps, and a trained encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config, load_config
from neonet3d.generation.latents import FoldLatents
from neonet3d.generation.train import fit_anatomy, train_autoencoder
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "portal_vein", "tumour"))
SHAPE = (24, 16, 8)
SPACING_MM = (3.0, 3.0, 6.0)
TINY = (
    "autoencoder.channels=8",
    "autoencoder.latent_channels=4",
    "autoencoder.loop.steps=2",
    "autoencoder.loop.batch_size=2",
    "classifier.channels=8",
    "classifier.encodings=3",
    "classifier.loop.steps=2",
    "baseline.width=0.25",
    "baseline.loop.steps=2",
)


def draw_patch(
    outcome: int, rng: np.random.Generator, *, shape: tuple[int, int, int], tumour: bool
) -> tuple[Volume, Volume]:
    """Liver everywhere but at the border, a portal tube along y, a tumour darker if positive."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, SPACING_MM, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    label_map = np.zeros(shape, dtype=np.uint8)
    label_map[1:-1, 1:-1, 1:-1] = 1
    label_map[np.hypot(x - 21, z) < 5] = 2
    if tumour:
        centre = rng.uniform(-4, 4, 3)
        label_map[np.sqrt(((np.stack([x, y, z], -1) - centre) ** 2).sum(-1)) < 12] = 3
    signal = np.array([20, 100, 140, 80 - 30 * outcome])
    image = np.clip(signal[label_map] + rng.normal(0, 4, shape), 1, None).astype(np.float32)
    affine = np.diag([*SPACING_MM, 1.0])
    return Volume(image, affine), Volume(label_map, affine)


@pytest.fixture(scope="session")
def write_patches(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cohort]:
    """A cohort of patches, every second one positive."""

    def write(
        n: int,
        *,
        seed: int = 0,
        schema: LabelSchema = SCHEMA,
        outcomes: Sequence[int] | None = None,
        masks: bool = True,
        tumour: bool = True,
        synthetic: Sequence[bool] | None = None,
        shape: tuple[int, int, int] = SHAPE,
    ) -> Cohort:
        rng = np.random.default_rng(seed)
        root = tmp_path_factory.mktemp("patches")
        writer = CohortWriter(root, schema, outcome_name="pni", channel="HBP", durable=False)
        for index, outcome in enumerate(outcomes or [i % 2 for i in range(n)]):
            image, mask = draw_patch(outcome, rng, shape=shape, tumour=tumour)
            writer.add(
                f"case_{seed}_{index}",
                image,
                mask if masks else None,
                outcome=outcome,
                extra={"synthetic": str(int(synthetic[index]))} if synthetic else None,
            )
        return writer.finish()

    return write


@pytest.fixture(scope="session")
def tiny() -> Config:
    return load_config("demo", overrides=TINY)


@pytest.fixture(scope="session")
def fold(write_patches: Callable[..., Cohort]) -> Fold:
    """Eight training and four held-out patches."""
    return Fold("fold-0", write_patches(8), write_patches(4, seed=1))


@pytest.fixture(scope="session")
def encoder_folder(fold: Fold, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder of the training patches of ``fold``, its anatomy prior beside it."""
    folder = tmp_path_factory.mktemp("encoder") / "autoencoder"
    train_autoencoder(fold, tiny, folder)
    fit_anatomy(FoldLatents(fold, folder), tiny, folder.parent)
    return folder
