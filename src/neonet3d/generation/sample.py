"""Writing synthetic cases: image and mask pairs as a cohort, each with its provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.patches import load_label_maps
from neonet3d.cohort.volume import Volume
from neonet3d.config import MasksConfig, SamplerConfig
from neonet3d.errors import InputError, RunError
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.lesion_edit import TumourEdit
from neonet3d.generation.mask_generator import DrawnMasks, MaskGenerator
from neonet3d.generation.sources import SOURCE_COLUMN, SOURCE_DIGITS
from neonet3d.types import Triple


@dataclass(frozen=True)
class SyntheticCase:
    """One synthetic case and where it comes from.

    Attributes:
        image: in units of the reference intensity (liver median = 1).
        source: SHA-256 of the case that gave the mask, or that a drawn mask started from; empty for
            one that was drawn from noise alone.
        seed: of the draw.
        mask_generator: SHA-256 of the weights that drew the mask; empty where a patient gave it.
    """

    name: str
    image: Volume
    label_map: Volume
    outcome: int | None
    source: str
    seed: int
    mask_generator: str = ""

    def columns(self, generator: LatentGenerator) -> dict[str, str]:
        """Provenance for participants.tsv; what there is none of is left out."""
        hashes = {
            SOURCE_COLUMN: self.source,
            "mask_generator": self.mask_generator,
            "generator": generator.card.weights_sha256,
        }
        return {
            "synthetic": "1",
            **{name: of[:SOURCE_DIGITS] for name, of in hashes.items() if of},
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
    edit: TumourEdit | None = None,
) -> Cohort:
    """Draw one image for each mask (or ``n``, going round the masks) and write the pairs.

    Args:
        label: outcome of every synthetic case; by default that of the mask's patient.
        edit: done to the tumour of every mask, each by itself.

    Raises:
        InputError: no masks, other classes, a label the generator does not know, patients with
            another outcome than the generator's where no label is given; an edit that a mask does
            not take.
        RunError: an edit that there is no room for.
    """
    if len(masks) == 0:
        raise InputError("There is no mask to draw an image for. Give a cohort with masks.")
    known = generator.card.outcome
    if known and label is None and masks.outcome_name not in (None, known):
        raise InputError(
            f"The generator draws {known}, and {masks.root} says {masks.outcome_name}. Say which "
            "outcome to draw: --label 0 or 1."
        )
    n = len(masks) if n is None else n
    cases = [masks.cases[i % len(masks)] for i in range(n)]
    rounds = [i // len(masks) for i in range(n)]
    outcomes = [label if label is not None else (c.outcome if known else None) for c in cases]
    rows = [i % len(masks) for i in range(n)]
    label_maps, scales = (of_mask[rows] for of_mask in masks_on_grid(generator, masks))
    if edit is not None:
        grid, schema, rng = generator.card.grid, masks.schema, np.random.default_rng(seed)
        edited = []
        for case, one, scale in zip(cases, label_maps.numpy(), scales, strict=True):
            try:
                edited.append(edit.apply(one, schema, as_spacing(grid, scale), rng))
            except (InputError, RunError) as error:
                raise type(error)(f"{case.name}: {error}") from error
        label_maps = torch.from_numpy(np.stack(edited))
    names = [
        case.name if rounds[i] == 0 else f"{case.name}-{rounds[i] + 1}"
        for i, case in enumerate(cases)
    ]
    sources = [case.digest() for case in cases]
    return _write_pairs(
        generator, _Plan(names, label_maps, scales, outcomes, sources), out, sampler, seed=seed
    )


def sample_new_masks(
    generator: LatentGenerator,
    masks: MaskGenerator,
    out: Path,
    sampler: SamplerConfig,
    config: MasksConfig,
    *,
    seed: int,
    n: int,
    training: Cohort | None = None,
    label: int | None = None,
    tumour_volume_mm3: float | None = None,
) -> tuple[Cohort, DrawnMasks]:
    """Draw ``n`` label maps, then an image for each, and write the pairs.

    Args:
        config, training: how masks are drawn, and where from (``MaskGenerator.sample``).
        label: outcome of every case; by default drawn from the training fold.
        tumour_volume_mm3: of every case; by default drawn from the training fold.

    Raises:
        InputError: masks of another training, or an outcome or volume that it does not have.
        RunError: a map whose tumour is not as asked in ``config.attempts`` draws.
    """
    if masks.card.training_cases != generator.card.training_cases:
        raise InputError(
            "The mask generator was trained on other cases than the image generator. "
            "Use the two of one training."
        )
    drawn = masks.sample(
        n,
        config,
        seed=seed,
        training=training,
        outcome=label,
        tumour_volume_mm3=tumour_volume_mm3,
    )
    plan = _Plan(
        names=[f"new_{i:04d}" for i in range(n)],
        label_maps=drawn.label_maps,
        log_scale=drawn.log_scale,
        outcomes=[None if outcome < 0 else outcome for outcome in drawn.outcomes.tolist()],
        sources=list(drawn.sources),
        mask_generator=masks.card.weights_sha256,
    )
    return _write_pairs(generator, plan, out, sampler, seed=seed), drawn


@dataclass(frozen=True)
class _Plan:
    """The cases to draw an image for."""

    names: list[str]
    label_maps: UInt8[torch.Tensor, "n x y z"]
    log_scale: Float[torch.Tensor, "n 3"]
    outcomes: list[int | None]
    sources: list[str]
    mask_generator: str = ""


def _write_pairs(
    generator: LatentGenerator, plan: _Plan, out: Path, sampler: SamplerConfig, *, seed: int
) -> Cohort:
    images = generator.sample(
        plan.label_maps,
        torch.tensor([-1 if outcome is None else outcome for outcome in plan.outcomes]),
        **sampler.model_dump(),
        seed=seed,
        log_scale=plan.log_scale,
    )
    with new_folder(out) as folder:
        writer = CohortWriter(
            folder,
            generator.card.schema_,
            outcome_name=generator.card.outcome,
            channel="synthetic",
            durable=False,
        )
        for i, name in enumerate(plan.names):
            scale = plan.log_scale[i]
            made = SyntheticCase(
                name=name,
                image=as_volume(generator, images[i].numpy(), scale),
                label_map=as_volume(generator, plan.label_maps[i].numpy(), scale),
                outcome=plan.outcomes[i],
                source=plan.sources[i],
                seed=seed,
                mask_generator=plan.mask_generator,
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


def as_spacing(grid: Grid, scale: Float[torch.Tensor, " 3"]) -> Triple:
    """Voxel size of a crop by its ``Patches.log_scale``."""
    x, y, z = (np.array(grid.spacing_mm) * scale.double().exp().numpy()).tolist()
    return (x, y, z)


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
    spacing_mm = np.array(as_spacing(grid, scale))
    affine = np.diag([*spacing_mm, 1.0])
    affine[:3, 3] = -(np.array(grid.shape) - 1) / 2 * spacing_mm
    if data.dtype != np.uint8:
        data = generator.card.reading.normaliser.invert(data)
    return Volume(data, affine)
