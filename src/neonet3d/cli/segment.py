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
    ensemble: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="MODEL",
            help="Average with this segmenter too, such as that of another fold; may be repeated.",
            show_default=False,
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option(help="Write OUT/probabilities/<case>_<class>.nii.gz too.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write OUT/<case>.nii.gz for each case, on the case's own grid.

    Where masks exist, OUT/metrics.csv says how good each is: Dice, 95 % Hausdorff distance, surface
    Dice at 2 mm, volume error, tumours found. A case that trained any of the models is not judged.
    """
    from neonet3d.cohort.volume import write_atomically
    from neonet3d.segmentation.predict import Ensemble, predict_cases
    from neonet3d.segmentation.score import as_csv, mean_of, score_case, sensitivity

    segmenter = Ensemble.load([model, *(ensemble or [])])
    cases = cases_to_apply(cohort, fold, seed or 0, splits)
    keep = segmenter.card.classes[1:] if probabilities else ()
    written = predict_cases(segmenter, cases, out, keep)
    predicted = cases.with_overlaid_masks(written)
    schema = segmenter.card.schema_
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
                scores.append(score_case(case.name, found, drawn, schema))
    means = {}
    if scores:
        write_atomically(out / "metrics.csv", as_csv(scores).encode())
        judged = [n for n in scores[0].classes if any(s.classes[n].dice >= 0 for s in scores)]
        means = {
            measure: {name: mean_of(scores, name, measure, seed=seed or 0) for name in judged}
            for measure in ("dice", "hd95_mm", "surface_dice")
        }
    found_share = sensitivity(scores)
    n_false = sum(score.lesions.n_false for score in scores if score.lesions)
    if means and not as_json:
        show_table(
            ("class", "Dice [95 % bootstrap]", "HD95 in mm", "surface Dice at 2 mm"),
            [
                (name, *(interval_text(means[measure][name]) for measure in means))
                for name in means["dice"]
            ],
        )
        if found_share is not None:
            typer.echo(
                f"Tumours: {found_share.n_positive} of {found_share.n} found, "
                f"{found_share.value:.3f} [{found_share.low:.3f}, {found_share.high:.3f}]; "
                f"{n_false} findings that are none, in {len(scores)} scans."
            )
    show(
        {
            "out": str(out),
            "cases": len(cases),
            "training_cases_not_judged": seen,
            "tumours_found": None if found_share is None else interval_json(found_share),
            "false_findings": n_false,
        }
        | {
            measure: {name: interval_json(interval) for name, interval in of.items()}
            for measure, of in (means or {"dice": {}}).items()
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
