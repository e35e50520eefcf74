"""Writing synthetic cases: image and mask pairs as a cohort, each with its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.patches import load_label_maps
from neonet3d.cohort.volume import Volume
from neonet3d.config import SamplerConfig
from neonet3d.errors import InputError
from neonet3d.generation.generator import LatentGenerator


@dataclass(frozen=True)
class SyntheticCase:
    """One synthetic case and where it comes from.

    Attributes:
        image: in units of the reference intensity (liver median = 1).
        source: SHA-256 of the case that gave the mask.
        seed: of the draw.
    """

    name: str
    image: Volume
    label_map: Volume
    outcome: int | None
    source: str
    seed: int

    def columns(self, generator: LatentGenerator) -> dict[str, str]:
        """Provenance for participants.tsv."""
        return {
            "synthetic": "1",
            "source_mask": self.source[:16],
            "generator": generator.card.weights_sha256[:16],
            "draw_seed": str(self.seed),
            "fold": generator.card.fold,
        }


def masks_on_grid(
    generator: LatentGenerator, masks: Cohort
) -> tuple[UInt8[torch.Tensor, "n x y z"], Float[torch.Tensor, "n 3"]]:
    """Label maps of a cohort, centred on the generator's grid, and their log scales.

    Raises:
        InputError: other classes, or a case without a mask.
    """
    generator.card.refuse_other_classes(masks.schema)
    return load_label_maps(masks, generator.card.grid)


def sample_cohort(
    generator: LatentGenerator,
    masks: Cohort,
    out: Path,
    sampler: SamplerConfig,
    *,
    seed: int,
    n: int | None = None,
    label: int | None = None,
) -> Cohort:
    """Draw one image for each mask (or ``n``, going round the masks) and write the pairs.

    Args:
        label: outcome of every synthetic case; by default that of the mask's patient.

    Raises:
        InputError: no masks, other classes, a label the generator does not know.
    """
    if len(masks) == 0:
        raise InputError("There is no mask to draw an image for. Give a cohort with masks.")
    n = len(masks) if n is None else n
    cases = [masks.cases[i % len(masks)] for i in range(n)]
    rounds = [i // len(masks) for i in range(n)]
    known = generator.card.outcome is not None
    outcomes = [label if label is not None else (c.outcome if known else None) for c in cases]
    rows = [i % len(masks) for i in range(n)]
    label_maps, scales = (of_mask[rows] for of_mask in masks_on_grid(generator, masks))
    images = generator.sample(
        label_maps,
        torch.tensor([-1 if outcome is None else outcome for outcome in outcomes]),
        steps=sampler.steps,
        guidance=sampler.guidance,
        seed=seed,
        log_scale=scales,
    )
    with new_folder(out) as folder:
        writer = CohortWriter(
            folder,
            masks.schema,
            outcome_name=generator.card.outcome,
            channel="synthetic",
            durable=False,
        )
        for i, case in enumerate(cases):
            made = SyntheticCase(
                name=case.name if rounds[i] == 0 else f"{case.name}-{rounds[i] + 1}",
                image=as_volume(generator, images[i].numpy(), scales[i]),
                label_map=as_volume(generator, label_maps[i].numpy(), scales[i]),
                outcome=outcomes[i],
                source=case.digest(),
                seed=seed,
            )
            writer.add(
                made.name,
                made.image,
                made.label_map,
                outcome=made.outcome,
                extra=made.columns(generator),
            )
        writer.finish()
    return Cohort.open(out)


def as_volume(
    generator: LatentGenerator,
    data: Float[np.ndarray, "x y z"] | UInt8[np.ndarray, "x y z"],
    scale: Float[torch.Tensor, " 3"],
) -> Volume:
    """A normalised image or a label map as a volume around the world's origin.

    Args:
        scale: its ``Patches.log_scale``.
    """
    grid = generator.card.grid
    spacing_mm = np.array(grid.spacing_mm) * scale.exp().numpy()
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(np.array(grid.shape) - 1) / 2 * spacing_mm
    if data.dtype != np.uint8:
        assert generator.card.normaliser is not None  # the autoencoder always records one
        data = generator.card.normaliser.invert(data)
    return Volume(data, affine)
