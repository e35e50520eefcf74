"""neonet3d segment: NeoSeg, and how good masks are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neonet3d.cli.options import (
    AsJson,
    CohortPath,
    ConfigFile,
    DivisionSeed,
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
    from neonet3d.engine.ranks import own_folder
    from neonet3d.segmentation.train import train_segmenter

    settings = resolve(preset, config, overrides, seed)
    with own_folder(out) as folder:
        train_segmenter(training_fold(cohort, fold, settings.seed, splits), settings, folder)
        card = read_card(folder)
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
    seed: DivisionSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Write OUT/<case>.nii.gz for each case, on the case's own grid.

    Where masks exist, they are scored as by 'neonet3d segment evaluate': OUT/metrics.csv holds each
    case, OUT/summary.csv each class. A case that trained any of the models is not judged.
    """
    from neonet3d.segmentation.evaluate import score_cases
    from neonet3d.segmentation.predict import Ensemble, predict_cases

    segmenter = Ensemble.load([model, *(ensemble or [])])
    cases = cases_to_apply(cohort, fold, seed, splits)
    keep = segmenter.card.classes[1:] if probabilities else ()
    written = predict_cases(segmenter, cases, out, keep)
    same = cases.schema.names == segmenter.card.classes
    drawn = [case for case in cases if case.mask_path is not None] if same else []
    judged = [case for case in drawn if not segmenter.card.saw(case)]
    seen = len(drawn) - len(judged)
    result: dict[str, object] = {"dice": {}}
    if judged:
        scores = score_cases(cases.subset(judged), written, tolerance_mm=TOLERANCE_MM)
        result = show_scores(scores, out, tolerance_mm=TOLERANCE_MM, seed=seed, as_json=as_json)
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
    seed: DivisionSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Score masks of any tool (nnU-Net's output included) against the cohort's.

    Dice, clDice of vessels, 95 % Hausdorff distance, surface Dice, volume error and tumours found:
    each case in metrics.csv, each class in summary.csv with intervals over patients.
    """
    from neonet3d.errors import InputError
    from neonet3d.segmentation.evaluate import find_masks, require_same_classes, score_cases

    cases = cases_to_apply(cohort, fold, seed, splits)
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
    result = show_scores(scores, folder, tolerance_mm=tolerance_mm, seed=seed, as_json=as_json)
    without = len(cases) - len(drawn)
    show(
        {"out": str(folder), "cases": len(cases), "without_reference": without} | result,
        as_json=as_json,
        sentence=f"{folder}: metrics.csv and summary.csv of {len(drawn)} cases."
        + (f" {without} more have no reference mask." if without else ""),
    )
