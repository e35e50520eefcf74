"""The NeoNet experiment (arXiv 2603.29449): every fold, then pooled out-of-fold statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold, stratified_folds
from neonet3d.cohort.splits import write_splits
from neonet3d.cohort.volume import write_atomically
from neonet3d.config import Config, fingerprint
from neonet3d.engine.executor import Executor, Task, run_here
from neonet3d.engine.progress import progress
from neonet3d.engine.run import RESULTS, RunFolder, Timer, once
from neonet3d.errors import InputError
from neonet3d.generation.train import train_generator
from neonet3d.metrics.features import require_extractor
from neonet3d.segmentation.crop_record import RECORD_FIELDS, cut_without_tumour
from neonet3d.segmentation.tlcr import crop_cohort
from neonet3d.study.arms import study_arms
from neonet3d.study.fold import FoldWork, fold_tasks
from neonet3d.study.paths import FoldPaths
from neonet3d.study.requirements import (
    require_known_names,
    require_models,
    require_one_scan_each,
    require_own_scans,
)
from neonet3d.study.results import StudyResults
from neonet3d.study.summary import FinishedFold, summarise_study


def run_pni_study(
    cohort: Cohort,
    run: RunFolder,
    *,
    title: str,
    folds: Sequence[Fold] | None = None,
    execute: Executor = run_here,
) -> StudyResults:
    """Cross-validate the whole chain; ``splits.json`` and ``results.json`` go to the run folder.

    Args:
        folds: the user's own division (``read_splits``); stratified folds by default.
        execute: does the stages of all folds; here, one after the other, by default.

    Raises:
        InputError: cases without masks, tumours or outcomes, classes by other names, several scans
            of a patient, a scan of two patients, too few patients for the folds, folds whose
            predictions cannot be pooled, packages that are missing, or what a model of the arms
            wants.
    """
    config = run.config
    require_extractor()
    require_known_names(cohort)
    require_models(cohort, config)
    require_one_scan_each(cohort, cohort.root)
    without = [case.name for case in cohort if case.mask_path is None]
    if without:
        raise InputError(
            f"{len(without)} cases of {cohort.root} have no mask (the first is {without[0]}), and "
            "the study trains NeoSeg on reference masks. Remove them or draw their masks."
        )
    if folds is None:
        folds = stratified_folds(cohort, config.study.folds, seed=config.seed)
    else:
        _require_poolable(folds)
    require_own_scans(cohort)
    write_splits(run.path / "splits.json", folds)
    run.update_manifest(cohort=str(cohort.root.resolve()))
    digests = [case.digest() for case in cohort]
    key = fingerprint(
        "crops", RECORD_FIELDS, digests, cohort.table_sha256(), cohort.said_of_all, config.roi
    )

    def crop(out: Path) -> None:
        with progress("cropping", len(cohort)) as advance:
            crop_cohort(cohort, out, config.roi, advance)

    with run.timed("crop"):
        # TLCR looks at one case at a time and fits nothing, so it may run before the folds.
        crops = Cohort.open(once(run.path / "crops", key, crop))
    if "tumour" in cohort.schema:
        _require_tumours(crops)
    works = [
        FoldWork(
            fold,
            Fold(fold.name, _same(crops, fold.training), _same(crops, fold.held_out)),
            config,
            FoldPaths(run.path / fold.name),
        )
        for fold in folds
    ]
    tasks, leak = [], []
    if any(arm.settings.leaky for arm in study_arms(config)):
        everyone = Fold("everyone", crops, crops.subset([]))
        out = works[0].paths.leaky_generator
        work = partial(_train_leaky, everyone, config, out)
        tasks.append(Task("leaky generator", work, run.path / ".locks"))
        leak = [tasks[0].name]
    for one in works:
        tasks += fold_tasks(one, after=leak)
    with progress("stages of all folds", len(tasks)) as advance:
        execute(tasks, run.record, advance)
    finished = [FinishedFold(one.fold, one.crops, one.paths) for one in works]
    with run.timed("evaluate"):
        results = summarise_study(
            cohort, finished, run.path / "log.jsonl", title=title, config=config
        )
    write_atomically(run.path / RESULTS, (results.model_dump_json(indent=1) + "\n").encode())
    return results


def _train_leaky(everyone: Fold, config: Config, out: Path, timed: Timer) -> None:
    with timed("train the leaky generator"):
        train_generator(everyone, config, out)


def _require_poolable(folds: Sequence[Fold]) -> None:
    """Each prediction counts once, and each fold has an AUC of its own.

    Raises:
        InputError: a case that is held out twice, or a fold that holds out one class only.
    """
    times = Counter(case.name for fold in folds for case in fold.held_out)
    name, n = times.most_common(1)[0]
    if n > 1:
        raise InputError(
            f"{name} is held out in {n} folds of --splits, so it would count {n} times in the "
            "pooled estimate. Hold each case out once; run repeats one by one."
        )
    for fold in folds:
        values = set(fold.held_out.outcomes.tolist())
        if len(values) < 2:
            raise InputError(
                f"{fold.name} of --splits holds out only cases with {fold.held_out.outcome_name} "
                f"= {values.pop()}, so it has no AUC. Hold out both classes in every fold."
            )


def _require_tumours(crops: Cohort) -> None:
    """Where a reference mask shows no tumour there is nothing to learn an outcome from."""
    lost = cut_without_tumour(crops)
    if lost:
        raise InputError(
            f"{len(lost)} cases have no tumour in their reference mask (the first is {lost[0]}), "
            "and the study classifies tumours. Remove them or draw their tumours."
        )


def _same(cohort: Cohort, like: Cohort) -> Cohort:
    """The cases of ``cohort`` that have the names of those in ``like``."""
    return cohort.subset(cohort[case.name] for case in like)
