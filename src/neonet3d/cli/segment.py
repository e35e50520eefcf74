"""neonet3d segment and crop: NeoSeg and TLCR."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neonet3d.cli.options import (
    AsJson,
    CohortPath,
    ConfigFile,
    FoldChoice,
    ModelPath,
    OutPath,
    Overrides,
    Preset,
    Seed,
    SplitsFile,
    cases_to_apply,
    interval_json,
    interval_text,
    resolve,
    show,
    show_table,
    training_fold,
)

app = typer.Typer(help="NeoSeg: train a segmenter, predict masks.", no_args_is_help=True)


@app.command()
def train(
    cohort: CohortPath,
    out: OutPath,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Train a segmenter on a cohort's masks. Interrupted, the same command goes on."""
    from neonet3d.engine.artefact import read_card
    from neonet3d.segmentation.train import train_segmenter

    settings = resolve(preset, config, overrides, seed)
    train_segmenter(training_fold(cohort, fold, settings.seed, splits), settings, out)
    card = read_card(out)
    show(
        {"model": str(out), "fold": card.fold, "training_cases": len(card.training_cases)},
        as_json=as_json,
        sentence=f"{out}: segmenter of {len(card.training_cases)} cases ({card.fold}).",
    )


@app.command()
def predict(
    model: ModelPath,
    cohort: CohortPath,
    out: OutPath,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write OUT/<case>.nii.gz for each case, on the case's own grid; Dice where masks exist."""
    from neonet3d.generation.evaluate import summarise
    from neonet3d.metrics.overlap import dice
    from neonet3d.segmentation.predict import Segmenter, predict_cases

    segmenter = Segmenter.load(model)
    cases = cases_to_apply(cohort, fold, seed or 0, splits)
    written = predict_cases(segmenter, cases, out)
    predicted = cases.with_overlaid_masks(written)
    labels = {n: v for n, v in segmenter.card.schema_.as_mapping().items() if v > 0}
    scores = []
    seen = 0
    if cases.schema.names == segmenter.card.classes:
        for case, reference in zip(predicted, cases, strict=True):
            drawn, found = reference.read_mask(), case.read_mask()
            if drawn is None or found is None:
                continue
            if reference.digest() in segmenter.card.training_cases:
                seen += 1
            else:
                scores.append(dice(found.data, drawn.data, labels))
    summary = summarise(scores, seed=seed or 0) if scores else {}
    if summary and not as_json:
        show_table(
            ("class", "Dice [95 % bootstrap]"),
            [(name, interval_text(interval)) for name, interval in summary.items()],
        )
    show(
        {
            "out": str(out),
            "cases": len(cases),
            "training_cases_not_judged": seen,
            "dice": {name: interval_json(interval) for name, interval in summary.items()},
        },
        as_json=as_json,
        sentence=f"{out}: masks of {len(cases)} cases."
        + (f" {seen} of them trained the model and are not in the Dice." if seen else ""),
    )


def crop(
    cohort: CohortPath,
    out: OutPath,
    segmenter: Annotated[
        Path | None,
        typer.Option(help="Crop to NeoSeg's masks instead of the cohort's.", show_default=False),
    ] = None,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """TLCR: cut the region of interest around the tumour of each case into a new cohort."""
    import tempfile

    from neonet3d.cohort.cohort import Cohort
    from neonet3d.engine.progress import progress
    from neonet3d.segmentation.predict import Segmenter, predict_cases
    from neonet3d.segmentation.tlcr import crop_cohort

    settings = resolve(preset, config, overrides, None)
    opened = Cohort.open(cohort)
    with tempfile.TemporaryDirectory() as folder:
        if segmenter is not None:
            masks = predict_cases(Segmenter.load(segmenter), opened, Path(folder))
            opened = opened.with_overlaid_masks(masks)
        with progress("cropping", len(opened)) as advance:
            crop_cohort(opened, out, settings.roi, advance)
    show(
        {"cohort": str(out), "cases": len(opened)},
        as_json=as_json,
        sentence=f"{out}: {len(opened)} patches of {settings.roi.shape} voxels.",
    )
