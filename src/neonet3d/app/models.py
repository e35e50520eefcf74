"""Which trained models of a study the app works with, and keeping them loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from neonet3d.classification.predict import Classifier
from neonet3d.config import Config, RoiConfig, SamplerConfig
from neonet3d.engine.artefact import ArtefactCard, read_card
from neonet3d.generation.generator import LatentGenerator
from neonet3d.segmentation.predict import Segmenter
from neonet3d.study.arms import first_patten
from neonet3d.study.paths import FoldPaths
from neonet3d.study.results import StudyResults

load_segmenter = cache(Segmenter.load)
load_generator = cache(LatentGenerator.load)
load_classifier = cache(Classifier.load)


@dataclass(frozen=True)
class FoldModels:
    """Where the models of one fold of a finished study are, and how they are used.

    They belong together: the classifier reads what the segmenter of its fold cuts and what the
    generator's encoder sees, and its calibration is of that chain.
    """

    segmenter: Path
    generator: Path
    classifier: Path
    roi: RoiConfig
    sampler: SamplerConfig

    @classmethod
    def of(cls, run: Path) -> FoldModels:
        """Of the study's first fold, with its first PattenNet.

        Raises:
            InputError: no finished study, or one without a PattenNet.
        """
        fold = min(StudyResults.read(run).folds)
        config = Config.model_validate(yaml.safe_load((run / "config.yaml").read_text("utf-8")))
        paths = FoldPaths(run / f"fold-{fold}")
        return cls(
            segmenter=paths.segmenter,
            generator=paths.generator,
            classifier=paths.classifier(first_patten(config).classifier),
            roi=config.roi,
            sampler=config.sampler,
        )

    def generator_card(self) -> ArtefactCard:
        """Grid, classes and outcome of the generator; no weights are read."""
        return read_card(self.generator / "autoencoder")

    def load(self) -> None:
        """All three, so that the first job need not wait for it."""
        load_segmenter(self.segmenter)
        load_generator(self.generator)
        load_classifier(self.classifier)
