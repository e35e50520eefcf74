"""The NeoNet experiment (arXiv 2603.29449): every fold, then pooled out-of-fold statistics."""

from __future__ import annotations

from pathlib import Path

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold, stratified_folds
from neonet3d.cohort.volume import write_atomically
from neonet3d.config import fingerprint
from neonet3d.engine.progress import progress
from neonet3d.engine.run import RunFolder, once
from neonet3d.errors import InputError
from neonet3d.segmentation.tlcr import crop_cohort
from neonet3d.study.fold import FoldPaths, run_fold
from neonet3d.study.results import StudyResults
from neonet3d.study.summary import FinishedFold, summarise_study


def run_pni_study(cohort: Cohort, run: RunFolder, *, title: str) -> StudyResults:
    """Cross-validate the whole chain and write ``results.json`` into the run folder.

    Raises:
        InputError: cases without masks or outcomes, too few patients for the folds.
    """
    config = run.config
    without = [case.name for case in cohort if case.mask_path is None]
    if without:
        raise InputError(
            f"{len(without)} cases of {cohort.root} have no mask (the first is {without[0]}), and "
            "the study trains NeoSeg on reference masks. Remove them or draw their masks."
        )
    folds = stratified_folds(cohort, config.study.folds, seed=config.seed)
    run.update_manifest(cohort=str(cohort.root.resolve()))
    key = fingerprint("crops", [case.digest() for case in cohort], config.roi)

    def crop(out: Path) -> None:
        with progress("cropping", len(cohort)) as advance:
            crop_cohort(cohort, out, config.roi, advance)

    with run.timed("crop"):
        # TLCR looks at one case at a time and fits nothing, so it may run before the folds.
        crops = Cohort.open(once(run.path / "crops", key, crop))
    finished = []
    with progress("folds", len(folds)) as advance:
        for fold in folds:
            part = Fold(fold.name, _same(crops, fold.training), _same(crops, fold.held_out))
            paths = FoldPaths(run.path / fold.name)
            run_fold(fold, part, config, paths, run.timed)
            finished.append(FinishedFold(fold, part, paths))
            advance()
    with run.timed("evaluate"):
        results = summarise_study(
            cohort, finished, run.path / "log.jsonl", title=title, seed=config.seed
        )
    write_atomically(run.path / "results.json", (results.model_dump_json(indent=1) + "\n").encode())
    return results


def _same(cohort: Cohort, like: Cohort) -> Cohort:
    """The cases of ``cohort`` that have the names of those in ``like``."""
    return cohort.subset(cohort[case.name] for case in like)
