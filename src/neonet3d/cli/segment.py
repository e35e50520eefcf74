"""neonet3d segment and crop: NeoSeg, TLCR, and how good masks are."""

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
    resolve,
    show,
    training_fold,
)
from neonet3d.cli.scores import TOLERANCE_MM, show_scores

app = typer.Typer(
    help="NeoSeg: train a segmenter, predict masks, score masks.", no_args_is_help=True
)


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
    """Train a segmenter on a cohort's masks. Interrupted, the same command goes on.

    'segment plan' prints the sizes beforehand; --set segmenter.network=NAME chooses the network.
    """
    from neonet3d.engine.artefact import read_card
    from neonet3d.segmentation.train import train_segmenter

    settings = resolve(preset, config, overrides, seed)
    train_segmenter(training_fold(cohort, fold, settings.seed, splits), settings, out)
    card = read_card(out)
    sizes = card.parts["plan"]
    show(
        {
            "model": str(out),
            "fold": card.fold,
            "training_cases": len(card.training_cases),
            "plan": sizes,
            **card.facts,
        },
        as_json=as_json,
        sentence=f"{out}: {sizes['network']} of {len(card.training_cases)} cases ({card.fold}), "
        f"patch {sizes['patch']} at {sizes['spacing_mm']} mm."
        + (
            f" Dice {card.facts['validation_dice']:.3f} on {card.facts['validation_cases']} of "
            f"them that only chose the weights (step {card.facts['best_step']})."
            if card.facts["validation_cases"]
            else ""
        ),
    )


@app.command()
def plan(
    cohort: CohortPath,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Print the fingerprint of the training scans and the sizes that follow from it.

    The sizes are YAML for --config, to be changed and given back to 'segment train'.
    """
    from dataclasses import asdict

    import yaml

    from neonet3d.segmentation.plan import make_plan
    from neonet3d.segmentation.train import read_fingerprint

    settings = resolve(preset, config, overrides, seed)
    training = training_fold(cohort, fold, settings.seed, splits).training
    fingerprint, _ = read_fingerprint(training)
    sizes = make_plan(fingerprint, settings.segmenter)
    document = {"segmenter": sizes.model_dump(mode="json")}
    spacing, extent = (
        " x ".join(f"{mm:.3g}" for mm in of)
        for of in (fingerprint.spacing_mm, fingerprint.extent_mm)
    )
    show(
        {"fingerprint": asdict(fingerprint), **document},
        as_json=as_json,
        sentence=f"# {fingerprint.n} scans: median voxel {spacing} mm, median extent {extent} mm; "
        f"memory {fingerprint.memory_bytes / 2**30:.0f} GiB\n"
        + yaml.safe_dump(document, sort_keys=False, default_flow_style=None).rstrip(),
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

    Where masks exist, they are scored as by 'neonet3d segment evaluate': OUT/metrics.csv holds each
    case, OUT/summary.csv each class. A case that trained any of the models is not judged.
    """
    from neonet3d.segmentation.evaluate import score_cases
    from neonet3d.segmentation.predict import Ensemble, predict_cases

    segmenter = Ensemble.load([model, *(ensemble or [])])
    cases = cases_to_apply(cohort, fold, seed or 0, splits)
    keep = segmenter.card.classes[1:] if probabilities else ()
    written = predict_cases(segmenter, cases, out, keep)
    same = cases.schema.names == segmenter.card.classes
    drawn = [case for case in cases if case.mask_path is not None] if same else []
    judged = [case for case in drawn if case.digest() not in segmenter.card.training_cases]
    seen = len(drawn) - len(judged)
    result: dict[str, object] = {"dice": {}}
    if judged:
        scores = score_cases(cases.subset(judged), written, tolerance_mm=TOLERANCE_MM)
        result = show_scores(
            scores, out, tolerance_mm=TOLERANCE_MM, seed=seed or 0, as_json=as_json
        )
    sentence = f"{out}: masks of {len(cases)} cases."
    if seen:
        sentence += f" {seen} of them trained the model and are not in the Dice."
    if not same:
        sentence += (
            f" None was scored: the model's classes are {list(segmenter.card.classes)}, the "
            f"cohort's {list(cases.schema.names)}."
        )
    show(
        {"out": str(out), "cases": len(cases), "training_cases_not_judged": seen} | result,
        as_json=as_json,
        sentence=sentence,
    )


@app.command()
def evaluate(
    cohort: CohortPath,
    masks: Annotated[
        Path, typer.Argument(help="Folder of masks: <case>.nii.gz.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the two tables; MASKS by default.", show_default=False),
    ] = None,
    tolerance_mm: Annotated[
        float, typer.Option(help="Distance that the surface Dice forgives.", min=0)
    ] = TOLERANCE_MM,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Score masks of any tool (nnU-Net's output included) against the cohort's.

    Dice, clDice of vessels, 95 % Hausdorff distance, surface Dice, volume error and tumours found:
    each case in metrics.csv, each class in summary.csv with intervals over patients.
    """
    from neonet3d.errors import InputError
    from neonet3d.segmentation.evaluate import find_masks, require_same_classes, score_cases

    cases = cases_to_apply(cohort, fold, seed or 0, splits)
    drawn = cases.subset(case for case in cases if case.mask_path is not None)
    if not len(drawn):
        raise InputError(
            f"None of the {len(cases)} cases of {cohort} has a mask in labelsTr to compare with. "
            "Draw some first."
        )
    found = find_masks(masks, drawn.cases)
    require_same_classes(masks, drawn.schema)
    scores = score_cases(drawn, found, tolerance_mm=tolerance_mm)
    folder = out or masks
    result = show_scores(scores, folder, tolerance_mm=tolerance_mm, seed=seed or 0, as_json=as_json)
    without = len(cases) - len(drawn)
    show(
        {"out": str(folder), "cases": len(cases), "without_reference": without} | result,
        as_json=as_json,
        sentence=f"{folder}: metrics.csv and summary.csv of {len(drawn)} cases."
        + (f" {without} more have no reference mask." if without else ""),
    )


def crop(
    cohort: CohortPath,
    out: OutPath,
    segmenter: Annotated[
        Path | None,
        typer.Option(help="Crop to NeoSeg's masks instead of the cohort's.", show_default=False),
    ] = None,
    all_lesions: Annotated[
        bool,
        typer.Option(
            "--all-lesions",
            help="One patch per lesion (CASE-1, CASE-2, ...) instead of the index lesion's.",
        ),
    ] = False,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """TLCR: cut the region of interest around the tumour of each case into a new cohort."""
    import tempfile

    from neonet3d.cohort.cohort import Cohort
    from neonet3d.engine.progress import progress
    from neonet3d.segmentation.crop_record import cut_without_tumour
    from neonet3d.segmentation.predict import Segmenter, predict_cases
    from neonet3d.segmentation.tlcr import crop_cohort

    settings = resolve(preset, config, overrides, None)
    opened = Cohort.open(cohort)
    with tempfile.TemporaryDirectory() as folder:
        if segmenter is not None:
            masks = predict_cases(Segmenter.load(segmenter), opened, Path(folder))
            opened = opened.with_overlaid_masks(masks)
        with progress("cropping", len(opened)) as advance:
            crops = crop_cohort(
                opened,
                out,
                settings.roi,
                advance,
                all_lesions=all_lesions,
                allow_empty=segmenter is not None,
            )
    lost = cut_without_tumour(crops)
    sentence = f"{out}: {len(crops)} patches of {settings.roi.shape} voxels."
    if lost:
        sentence += (
            f" {len(lost)} of them show the middle of the liver or of the scan, since there is no "
            f"tumour in the mask (the first is {lost[0]}); classify refuses them without "
            "--allow-no-tumour."
        )
    show(
        {"cohort": str(out), "cases": len(crops), "without_tumour": lost},
        as_json=as_json,
        sentence=sentence,
    )


def place_back(
    crops: Annotated[Path, typer.Argument(help="Folder that 'crop' wrote.", show_default=False)],
    case: Annotated[str, typer.Argument(help="Name of the patch in it.", show_default=False)],
    mask: Annotated[
        Path, typer.Argument(help="Mask (NIfTI) on the grid of the patch.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Argument(help="File to write, .nii or .nii.gz.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Take a mask that was drawn in a patch back to the grid of the scan it was cut from.

    The scan itself is not needed; outside the patch the mask is background.
    """
    from neonet3d.segmentation.crop_record import place_file_back

    placed = place_file_back(crops, case, mask, out)
    voxels = int((placed.data > 0).sum())
    show(
        {"mask": str(out), "shape": list(placed.shape), "voxels": voxels},
        as_json=as_json,
        sentence=f"{out}: {voxels} voxels drawn, on the scan's grid {placed.shape}.",
    )
