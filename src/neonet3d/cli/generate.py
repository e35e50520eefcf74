"""neonet3d generate: train, sample, balance, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neonet3d.cli.copying import audit_draws, find_reference
from neonet3d.cli.fidelity import show_scores
from neonet3d.cli.forecast import show_forecast
from neonet3d.cli.new_masks import NewMasks, draw_new_masks
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
from neonet3d.errors import InputError

app = typer.Typer(
    help="NeoGen / 3D-LLDM: train a generator, draw volumes with masks, balance, evaluate.",
    no_args_is_help=True,
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
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Forecast time and memory; write nothing."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train the generator on a cohort of patches with masks. Interrupted, it goes on.

    Crop whole scans first: 'neonet3d crop' to tumours, and with --preset liver, here too, to whole
    livers. Small volumes are taken as they are.
    """
    from neonet3d.engine.artefact import read_card
    from neonet3d.engine.ranks import own_folder
    from neonet3d.generation.audit import audit_copying
    from neonet3d.generation.mask_train import train_mask_generator
    from neonet3d.generation.train import train_generator

    settings = resolve(preset, config, overrides, seed)
    division = training_fold(cohort, fold, settings.seed, splits)
    if dry_run:
        show_forecast(division, settings, as_json=as_json)
        return
    with own_folder(out) as folder:
        generator = train_generator(division, settings, folder)
        train_mask_generator(division, settings, folder / "masks")
        facts = read_card(folder / "autoencoder").facts
    judged = division.held_out.subset(c for c in division.held_out if c.mask_path is not None)
    copying = audit_copying(generator, division.training, judged, seed=settings.seed)
    show(
        {
            "model": str(out),
            "fold": generator.card.fold,
            "training_cases": len(generator.card.training_cases),
            "shape": list(generator.card.grid.shape),
            "spacing_mm": list(generator.card.grid.spacing_mm),
            "autoencoder": facts,
            "copying": copying.as_json(),
        },
        as_json=as_json,
        sentence=f"{out}: generator of {generator.card.grid.shape} voxels from "
        f"{len(generator.card.training_cases)} cases ({generator.card.fold}).\n"
        f"{copying.sentence}",
    )


@app.command()
def sample(
    model: ModelPath,
    out: OutPath,
    masks: Annotated[
        Path | None, typer.Option(help="Cohort whose masks steer the images.", show_default=False)
    ] = None,
    new_masks: Annotated[
        bool, typer.Option("--new-masks", help="Draw masks that no patient had, instead.")
    ] = False,
    n: Annotated[
        int | None,
        typer.Option(
            help="Volumes; one per mask by default, as many as training cases for new masks.",
            min=1,
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=0|1",
            help="Outcome of every volume, e.g. pni=1; by default that of the mask's patient.",
            show_default=False,
        ),
    ] = None,
    tumour_volume: Annotated[
        float | None,
        typer.Option(
            metavar="MM3",
            help="Of every tumour: new masks are drawn with it (by default as in training); with "
            "--masks it is grown, shrunk or inserted.",
            min=0,
            show_default=False,
        ),
    ] = None,
    move_tumour: Annotated[
        bool, typer.Option("--move-tumour", help="To another place of the liver, with --masks.")
    ] = False,
    training: Annotated[
        Path | None,
        typer.Option(
            help="Cohort the generator was trained on: new masks start from its masks, and draws "
            "are audited for copying; by default that of --masks where it is the same.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the flow; the preset's by default.", min=1)
    ] = None,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Draw image and mask pairs into a cohort, each with its provenance."""
    from neonet3d.cohort.folder import require_new
    from neonet3d.generation.generator import LatentGenerator
    from neonet3d.generation.lesion_edit import TumourEdit
    from neonet3d.generation.sample import sample_cohort

    if (masks is None) != new_masks:
        raise InputError("Say --masks COHORT or --new-masks, and not both.")
    if new_masks and (fold is not None or splits is not None or move_tumour):
        raise InputError("--fold, --splits and --move-tumour belong to --masks. Leave them out.")
    settings = resolve(preset, config, overrides, seed)
    require_new(out)
    sampler = settings.sampler.model_copy(update={"steps": steps} if steps is not None else {})
    generator = LatentGenerator.load(model)
    outcome = _label(label, generator.card.outcome)
    reference = find_reference(generator, training, masks)
    if masks is None:
        seen = None if reference is None else reference.training
        wanted = NewMasks(n, settings.masks, outcome, tumour_volume, seen)
        found, sentence = draw_new_masks(generator, model, out, sampler, wanted, seed=settings.seed)
    else:
        edit = None
        if move_tumour or tumour_volume is not None:
            edit = TumourEdit(move_tumour, tumour_volume)
        cohort = sample_cohort(
            generator,
            cases_to_apply(masks, fold, settings.seed, splits),
            out,
            sampler,
            seed=settings.seed,
            n=n,
            label=outcome,
            edit=edit,
        )
        found = {"cases": len(cohort)}
        sentence = f"{len(cohort)} synthetic volumes with masks."
    copying, said = audit_draws(generator, reference, out, seed=settings.seed)
    calibrated = sampler == generator.calibrated_for
    if not calibrated:
        said += (
            "\nThe calibration was fitted on draws of another sampler, so these are a little less "
            "like scans. Train with this one (--set sampler.steps and its like) to mend that."
        )
    show(
        {"cohort": str(out)} | found | {"copying": copying, "calibrated_for_sampler": calibrated},
        as_json=as_json,
        sentence=f"{out}: {sentence}\n{said}",
    )


@app.command()
def balance(
    cohort: CohortPath,
    out: OutPath,
    model: Annotated[Path, typer.Option(help="Generator of the same fold.", show_default=False)],
    segmenter: Annotated[
        Path | None,
        typer.Option(
            help="NeoSeg of the same fold, which must find the synthetic tumours; not for organs "
            "without.",
            show_default=False,
        ),
    ] = None,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Write the training cases with synthetic ones to 1:1, behind the quality gate."""
    import json

    from neonet3d.cohort.folder import new_folder
    from neonet3d.engine.progress import progress
    from neonet3d.generation.balance import balance_cohort, plan_balance
    from neonet3d.generation.generator import LatentGenerator
    from neonet3d.segmentation.predict import Segmenter

    settings = resolve(preset, config, overrides, seed)
    chosen = training_fold(cohort, fold, settings.seed, splits)
    training = chosen.training
    positive = int(training.outcomes.sum())
    wanted = plan_balance(len(training) - positive, positive, settings.balance)
    generator = LatentGenerator.load(model)
    judge = None if segmenter is None else Segmenter.load(segmenter)
    for card in (generator.card, *([] if judge is None else [judge.card])):
        card.refuse_training_cases(chosen.held_out)
        card.refuse_other_classes(training.schema)
    with (
        new_folder(out) as folder,
        progress("synthetic cases", wanted.negative + wanted.positive) as advance,
    ):
        balance_cohort(
            training,
            generator,
            judge,
            folder,
            settings.balance,
            settings.sampler,
            seed=settings.seed,
            advance=advance,
        )
    record = json.loads((out / "balance.json").read_text())
    show(
        {"cohort": str(out)} | record,
        as_json=as_json,
        sentence=f"{out}: real {record['real']}, synthetic {record['synthetic']}; "
        f"{record['rejected']} of {record['drawn']} draws refused.",
    )


@app.command()
def evaluate(
    real: Annotated[Path, typer.Argument(help="Cohort of real volumes.", show_default=False)],
    synthetic: Annotated[
        Path, typer.Argument(help="Cohort of synthetic volumes.", show_default=False)
    ],
    segmenter: Annotated[
        Path | None,
        typer.Option(help="NeoSeg of the training cases, for mask adherence.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="The generator, for the copying audit; REAL holds its training cases too.",
            show_default=False,
        ),
    ] = None,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    seed: DivisionSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Can synthetic volumes be told from real ones, are they diverse, do they copy?

    KID and FID with their real-against-real floor, a two-sample test on region features, precision
    and recall, MS-SSIM and power spectra; mask adherence with --segmenter, copying with --model.
    """
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.generation.evaluate import evaluate_generator
    from neonet3d.generation.generator import LatentGenerator
    from neonet3d.segmentation.predict import Segmenter

    held_out, training, generator = cases_to_apply(real, fold, seed, splits), None, None
    if model is not None:
        generator = LatentGenerator.load(model)
        training = training_fold(real, fold, seed, splits).training
    scores = evaluate_generator(
        held_out,
        Cohort.open(synthetic),
        seed=seed,
        segmenter=None if segmenter is None else Segmenter.load(segmenter),
        generator=generator,
        training=training,
    )
    if not as_json:
        show_scores(scores)
    sentence = f"Extractor: {scores.fidelity[0].extractor}. Compare FID with its floor only."
    if scores.copying is not None:
        sentence += f"\n{scores.copying.sentence}"
    show(scores.as_json(), as_json=as_json, sentence=sentence)


def _label(text: str | None, outcome: str | None) -> int | None:
    if text is None:
        return None
    name, _, value = text.partition("=")
    if value not in ("0", "1"):
        raise InputError(f"--label {text!r} is not NAME=0 or NAME=1, such as pni=1.")
    if name != outcome:
        raise InputError(
            f"The generator knows the outcome {outcome!r}, not {name!r}. "
            + ("Leave --label out." if outcome is None else f"Say --label {outcome}={value}.")
        )
    return int(value)
