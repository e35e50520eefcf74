"""Intensity normalisation: MR has no units, so each scan is divided by a reference of its own.

In hepatobiliary MR the reference is the median of the liver: flip angle, repetition time and
uptake change the signal of everything, and the ratio to the liver is what a reader looks at.
Without a liver mask it is a high percentile. The ceiling is fitted on the training fold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveFloat

from neonet3d.errors import InputError
from neonet3d.types import ImageArray, LabelMap, LabelSchema

Reference = Literal["liver_median", "percentile_99.5"]


class IntensityNormaliser(BaseModel):
    """``clip(image / reference, 0, ceiling)`` mapped to [-1, 1].

    Attributes:
        reference: what one scan is divided by.
        ceiling: in units of the reference; 99.9th percentile over the training fold.
        liver_value: value of the liver in the label map, for ``liver_median``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: Reference
    ceiling: PositiveFloat
    liver_value: int | None = None

    @classmethod
    def fit(
        cls, cases: Iterable[tuple[str, ImageArray, LabelMap | None]], schema: LabelSchema
    ) -> IntensityNormaliser:
        """Fit the ceiling on the training cases of one fold, one after the other.

        The reference is the liver where every case has a mask of a schema with a liver.

        Args:
            cases: name, image and mask of each.
        """
        rules = [cls(reference="percentile_99.5", ceiling=1.0)]
        if "liver" in schema:
            value = schema.value("liver")
            rules.append(cls(reference="liver_median", ceiling=1.0, liver_value=value))
        tops: dict[Reference, list[float]] = {rule.reference: [] for rule in rules}
        for name, image, mask in cases:
            top = _top(image)
            for rule in rules if mask is not None else rules[:1]:
                reference = rule.reference_of(image, mask, name=name)
                tops[rule.reference].append(top / reference)
        n = len(tops[rules[0].reference])
        rule = [rule for rule in rules if len(tops[rule.reference]) == n][-1]
        return rule.model_copy(update={"ceiling": float(np.median(tops[rule.reference]))})

    def reference_of(self, image: ImageArray, mask: LabelMap | None, *, name: str) -> float:
        """The scan's own reference intensity, in the scan's units."""
        if self.reference == "percentile_99.5":
            # A sparse volume (a vessel in an empty box) has its percentile in the background.
            value = float(np.percentile(image[image > 0], 99.5)) if (image > 0).any() else 0.0
        else:
            liver = image[mask == self.liver_value] if mask is not None else image[:0]
            value = float(np.median(liver)) if liver.size else 0.0
        if not value > 0:
            raise InputError(
                f"{name}: the reference intensity ({self.reference}) is {value:g}. "
                "The scan needs positive voxels, and a liver in its mask where the model uses one."
            )
        return value

    def apply(self, image: ImageArray, mask: LabelMap | None, *, name: str) -> ImageArray:
        """Normalise one scan to [-1, 1]."""
        return self.scale(image, self.reference_of(image, mask, name=name))

    def scale(self, image: ImageArray, reference: float) -> ImageArray:
        """Normalise a part of a scan whose reference intensity is known."""
        return (np.clip(image / reference / self.ceiling, 0, 1) * 2 - 1).astype(np.float32)

    def invert(self, normalised: ImageArray) -> ImageArray:
        """From [-1, 1] to units of the reference (liver median = 1)."""
        return ((normalised + 1) / 2 * self.ceiling).astype(np.float32)


def _top(image: ImageArray) -> float:
    """99.9th percentile; where that is 0, so few voxels are positive, the one among these."""
    top = float(np.percentile(image, 99.9))
    if top > 0 or not (image > 0).any():
        return top
    return float(np.percentile(image[image > 0], 99.9))
