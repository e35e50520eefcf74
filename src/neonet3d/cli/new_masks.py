"""neonet3d generate sample --new-masks: pairs that no patient had, and how new their masks are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.config import MasksConfig, SamplerConfig
    from neonet3d.generation.generator import LatentGenerator


@dataclass(frozen=True)
class NewMasks:
    """What the options of the command say.

    Attributes:
        n: pairs; as many as training cases by default.
        config: how masks are drawn.
        training: the cases of training, whose masks the new ones start from, and to measure how new
            they are.
    """

    n: int | None
    config: MasksConfig
    label: int | None
    tumour_volume_mm3: float | None
    training: Cohort | None


def draw_new_masks(
    generator: LatentGenerator,
    model: Path,
    out: Path,
    sampler: SamplerConfig,
    wanted: NewMasks,
    *,
    seed: int,
) -> tuple[dict[str, Any], str]:
    """Write the pairs; what the command says of them, as JSON and as a sentence."""
    import numpy as np

    from neonet3d.generation.mask_generator import MaskGenerator
    from neonet3d.generation.sample import sample_new_masks

    masks = MaskGenerator.load(model / "masks")
    cohort, drawn = sample_new_masks(
        generator,
        masks,
        out,
        sampler,
        wanted.config,
        seed=seed,
        n=wanted.n or len(masks.card.training_cases),
        training=wanted.training,
        label=wanted.label,
        tumour_volume_mm3=wanted.tumour_volume_mm3,
    )
    found: dict[str, Any] = {"cases": len(cohort), "redrawn": drawn.redrawn, "novelty": None}
    sentence = (
        f"{len(cohort)} synthetic volumes with new masks; {drawn.redrawn} masks were drawn again."
    )
    if wanted.training is None:
        return found, f"{sentence} Give --training to measure how new they are."
    novelty = masks.novelty(drawn, wanted.training)
    median, largest = float(np.median(novelty.drawn)), float(novelty.drawn.max())
    usual, most = float(np.median(novelty.training)), float(novelty.training.max())
    found["novelty"] = {
        "nearest_training_dice": novelty.drawn.tolist(),
        "median": median,
        "largest": largest,
        "between_patients": {"median": usual, "largest": most},
    }
    return found, (
        f"{sentence} Dice with the nearest training mask: median {median:.2f}, largest "
        f"{largest:.2f}; between training masks of different patients {usual:.2f} and {most:.2f}."
    )
