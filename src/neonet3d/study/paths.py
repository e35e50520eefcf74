"""Where a fold of a study keeps its stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FoldPaths:
    """Of one fold."""

    root: Path

    @property
    def segmenter(self) -> Path:
        return self.root / "segmenter"

    @property
    def masks(self) -> Path:
        return self.root / "masks"

    @property
    def crops(self) -> Path:
        return self.root / "crops"

    @property
    def generator(self) -> Path:
        return self.root / "generator"

    @property
    def leaky_generator(self) -> Path:
        """Of all patients, for the arms that show what it pretends; of all folds."""
        return self.root.parent / "leaky" / "generator"

    def generator_of(self, *, leaky: bool) -> Path:
        return self.leaky_generator if leaky else self.generator

    def data(self, name: str) -> Path:
        """A training set of the classifiers."""
        return self.root / "data" / name

    @property
    def pairs(self) -> Path:
        return self.root / "pairs"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions" / "predictions.csv"

    def classifier(self, name: str) -> Path:
        return self.root / "classifiers" / name
