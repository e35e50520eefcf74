"""What a flow U-Net is told: an outcome label, a few numbers, and roughly where the organs are.

For NeoGen the numbers are the logarithms of a crop's voxel size over the grid's, along x, y and z
(``Patches.log_scale``): 0 where a crop has the grid's own spacing, log(1.2) where TLCR widened it
by a fifth. They state spacing and crop scale alike, since a network knows both only through the
size of a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

N_LABELS = 2
NULL_LABEL = 2
N_SCALES = 3  # numbers of NeoGen: ``Patches.log_scale``


@dataclass(frozen=True)
class Condition:
    """Of a batch.

    Attributes:
        label: (b,) 0, 1 or ``NULL_LABEL``.
        numbers: (b, n); 0 is the usual.
        fractions: (b, k, x, y, z) share of each foreground class in each latent voxel; None where
            the mask is not told. What is finer comes by a ControlNet.
    """

    label: Int[Tensor, " b"]
    numbers: Float[Tensor, "b n"]
    fractions: Float[Tensor, "b k x y z"] | None = None

    @classmethod
    def of(cls, outcomes: Int[Tensor, " b"], numbers: Float[Tensor, "b n"]) -> Condition:
        """From outcomes, of which negative ones are unknown."""
        return cls(torch.where(outcomes < 0, NULL_LABEL, outcomes), numbers)

    def with_mask(self, fractions: Float[Tensor, "b k x y z"]) -> Condition:
        return replace(self, fractions=fractions)

    def without_mask(self) -> Condition:
        return replace(self, fractions=None)

    def without_label(self) -> Condition:
        return replace(self, label=torch.full_like(self.label, NULL_LABEL))

    def with_labels_hidden(self, fraction: float) -> Condition:
        """A random share of the known labels becomes the null label, so that guidance works."""
        hidden = torch.rand(len(self.label), device=self.label.device) < fraction
        return replace(self, label=torch.where(hidden, NULL_LABEL, self.label))
