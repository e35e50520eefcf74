"""A page for the held-out cases of each fold: what was said of them, and why.

Drawn from a finished study by its first PattenNet, which saw none of them, on the patches that
NeoSeg's masks cut; with occlusion maps, and the counterfactual of the fold's generator.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from neonet3d.classification.predict import Classifier
from neonet3d.cohort.cohort import Cohort
from neonet3d.config import Config
from neonet3d.engine.progress import progress
from neonet3d.generation.generator import LatentGenerator
from neonet3d.report.predictions import look_at, write_predictions
from neonet3d.segmentation.crop_record import cut_without_liver
from neonet3d.study.arms import first_patten
from neonet3d.study.paths import FoldPaths
from neonet3d.study.results import StudyResults


def write_case_pages(run: Path) -> tuple[Path, ...]:
    """Write ``cases-fold-K.html`` of every fold of a finished study.

    Cases appear by their number in the cohort's table. One without a liver in NeoSeg's mask is left
    out, since there is nothing to look at, and so is a fold of such cases alone.

    Raises:
        InputError: a study that is not finished, or has no honest PattenNet among its arms.
    """
    folds = sorted(set(StudyResults.read(run).folds))
    config = Config.model_validate(yaml.safe_load((run / "config.yaml").read_text("utf-8")))
    arm = first_patten(config)
    numbers = {case.name: i for i, case in enumerate(Cohort.open(run / "crops"), start=1)}
    written = []
    with progress("pages of held-out cases", len(folds)) as advance:
        for fold in folds:
            paths, out = FoldPaths(run / f"fold-{fold}"), run / f"cases-fold-{fold}.html"
            cases = Cohort.open(paths.crops)
            without = cut_without_liver(cases)
            cases = cases.subset(case for case in cases if case.name not in without)
            if len(cases):
                classifier = Classifier.load(paths.classifier(arm.classifier))
                found = classifier.assess(cases, allow_no_tumour=True)
                generator = LatentGenerator.load(paths.generator)
                seen = look_at(classifier, cases, [numbers[c.name] for c in cases], generator)
                prevalence = classifier.prevalence
                write_predictions(out, seen, found, classifier.card, prevalence=prevalence)
                written.append(out)
            advance()
    return tuple(written)
