"""The quality gate: what a synthetic patch must pass before a classifier may learn from it.

It must show its tumour where the mask has it, and it must not be a training patch over again.
Copying is measured as Carlini et al. 2023 (arXiv 2301.13188) do it, by the distance to the nearest
training patch *relative to the mean distance to its 50 nearest*. A plain distance would call every
smooth patch a copy, since what lies near the middle of all patches lies near each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import load_patches
from neonet3d.cohort.volume import Volume
from neonet3d.config import BalanceConfig
from neonet3d.errors import InputError
from neonet3d.generation.generator import LatentGenerator
from neonet3d.metrics.memorisation import COPY_RATIO, nearest_ratio
from neonet3d.metrics.overlap import dice
from neonet3d.segmentation.predict import Segmenter

READ_REAL_CASES = 20  # real patches that set the threshold of the Dice


@dataclass(frozen=True)
class QualityGate:
    """What a synthetic patch must pass.

    Attributes:
        training: (n, x, y, z) normalised training images.
        segmenter: None where the classes hold no tumour to find.
        least_dice: least tumour Dice of NeoSeg's reading against the mask. NeoSeg knows whole scans
            and reads patches less well, so the measure is how it reads *real* training patches.
    """

    segmenter: Segmenter | None
    training: Float[Tensor, "n x y z"]
    least_dice: float

    @classmethod
    def of(
        cls,
        training: Cohort,
        generator: LatentGenerator,
        segmenter: Segmenter | None,
        config: BalanceConfig,
    ) -> QualityGate:
        """Measure the training patches.

        Raises:
            InputError: no segmenter, though there are tumours to find.
        """
        if segmenter is None and "tumour" in training.schema:
            raise InputError(
                "Synthetic tumours are read back by NeoSeg. Give the segmenter of the same fold."
            )
        card = generator.card
        images = load_patches(training, *card.reading).images
        sample = training.cases[:: math.ceil(len(training) / READ_REAL_CASES)]
        readings = [tumour_dice(segmenter, *case.read_with_mask()) for case in sample]
        known = [reading for reading in readings if not np.isnan(reading)]
        least = float(np.quantile(known, config.adherence_quantile)) if known else 0.0
        return cls(segmenter, images, least)

    def accepts(self, image: Float[Tensor, "x y z"], volume: Volume, label_map: Volume) -> bool:
        """Whether a patch passes; ``volume`` is the same image in units of the reference."""
        apart = (self.training - image).square().mean((1, 2, 3)).sqrt()
        if nearest_ratio(apart[None].numpy())[0] < COPY_RATIO:
            return False
        score = tumour_dice(self.segmenter, volume, label_map)
        return bool(np.isnan(score) or score >= self.least_dice)


def tumour_dice(segmenter: Segmenter | None, image: Volume, label_map: Volume) -> float:
    """Dice of NeoSeg's tumour against the mask's; nan where both are empty or there is no class."""
    if segmenter is None or "tumour" not in segmenter.card.schema_:
        return math.nan
    schema = segmenter.card.schema_
    found = segmenter.segment(image).label_map.data
    return dice(found, label_map.data, {"tumour": schema.value("tumour")})["tumour"]
