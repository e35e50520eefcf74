"""What the rivals are shown: random batches of patches with masks and labels, slightly shifted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from neonet3d.cohort.patches import NO_OUTCOME, Patches, Shift
from neonet3d.engine.device import fabric
from neonet3d.generation.controlnet import one_hot
from neonet3d.generation.latents import LARGEST_SHIFT
from neonet3d.types import ImageBatch, OneHotBatch

N_LABELS = 2
HIDDEN_LABELS = 0.1  # of the batches' known labels, so that a sample may go without one


@dataclass(frozen=True)
class Batch:
    """On the device.

    Attributes:
        images: (b, 1, x, y, z) in [-1, 1].
        masks: (b, k, x, y, z) memberships of the k foreground classes.
        labels: (b,) 0, 1 or -1 for "not said".
    """

    images: ImageBatch
    masks: OneHotBatch
    labels: Int[Tensor, " b"]


@dataclass(frozen=True)
class TrainingSet:
    """Patches to draw batches from, by torch's own generator, which the loop has seeded.

    The shifts are those that NeoGen trains with; there are no flips, for the same reason.
    """

    patches: Patches
    n_classes: int
    labelled: bool

    def draw(self, size: int) -> Batch:
        """Cases at random, with repetition; a batch shares one shift of up to ``LARGEST_SHIFT``."""
        rows = torch.randint(len(self.patches), (size,))
        x, y, z = torch.randint(-LARGEST_SHIFT, LARGEST_SHIFT + 1, (3,)).tolist()
        shift, here = Shift((x, y, z)), fabric()
        maps = here.to_device(shift.apply(self.patches.required_label_maps()[rows]))
        return Batch(
            here.to_device(shift.apply(self.patches.images[rows]))[:, None],
            one_hot(maps, self.n_classes),
            here.to_device(self.labels(rows)),
        )

    def labels(self, rows: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Outcomes of cases, of which a random share is hidden; all are, without labels."""
        outcomes = self.patches.outcomes[rows]
        hidden = torch.rand(len(rows)) < (HIDDEN_LABELS if self.labelled else 1)
        return torch.where(hidden, NO_OUTCOME, outcomes)


def label_vector(labels: Int[Tensor, " b"], width: int) -> Float[Tensor, "b w"]:
    """One-hot; zeros for what is not said. ``width`` is 2, or 0 for a rival without labels."""
    return (labels[:, None] == torch.arange(width, device=labels.device)).float()


def fractions(masks: OneHotBatch, factor: int) -> OneHotBatch:
    """Share of each class in blocks of ``factor`` voxels an edge; a thin vein does not vanish."""
    return F.avg_pool3d(masks, factor) if factor > 1 else masks
