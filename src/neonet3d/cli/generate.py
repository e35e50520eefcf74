"""neonet3d generate: train, sample, balance, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neonet3d.cli.new_masks import NewMasks, draw_new_masks
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
    show_fidelity,
    show_table,
    training_fold,
)
from neonet3d.errors import InputError

app = typer.Typer(
    help="NeoGen / 3D-LLDM: train a generator, draw volumes with masks, balance, evaluate.",
    no_args_is_help=True,
)
SegmenterPath = Annotated[Path, typer.Option(help="NeoSeg of the same fold.", show_default=False)]


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
    """Train the generator on a cohort of patches with masks. Interrupted, it goes on.

    Crop whole livers first ('neonet3d crop'); small volumes are taken as they are.
    """
    from neonet3d.engine.artefact import read_card
    from neonet3d.generation.train import train_generator

    settings = resolve(preset, config, overrides, seed)
    generator = train_generator(training_fold(cohort, fold, settings.seed, splits), settings, out)
    facts = read_card(out / "autoencoder").facts
    show(
        {
            "model": str(out),
            "fold": generator.card.fold,
            "training_cases": len(generator.card.training_cases),
            "shape": list(generator.card.grid.shape),
            "spacing_mm": list(generator.card.grid.spacing_mm),
            "autoencoder": facts,
        },
        as_json=as_json,
        sentence=f"{out}: generator of {generator.card.grid.shape} voxels from "
        f"{len(generator.card.training_cases)} cases ({generator.card.fold}).",
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
            help="Of every new mask; by default as in training.",
            min=0,
            show_default=False,
        ),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(
            help="Cohort the generator was trained on, to measure how new the masks are.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Euler steps; the preset's by default.")] = None,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Draw image and mask pairs into a cohort, each with its provenance."""
    from neonet3d.generation.generator import LatentGenerator
    from neonet3d.generation.sample import sample_cohort

    if (masks is None) != new_masks:
        raise InputError("Say --masks COHORT or --new-masks, and not both.")
    if not new_masks and (tumour_volume is not None or training is not None):
        raise InputError("--tumour-volume and --training belong to --new-masks. Leave them out.")
    if new_masks and (fold is not None or splits is not None):
        raise InputError("--fold and --splits belong to --masks. Leave them out.")
    settings = resolve(preset, config, overrides, seed)
    sampler = settings.sampler.model_copy(update={"steps": steps} if steps else {})
    generator = LatentGenerator.load(model)
    outcome = _label(label, generator.card.outcome)
    if masks is None:
        wanted = NewMasks(n, outcome, tumour_volume, training)
        found, sentence = draw_new_masks(generator, model, out, sampler, wanted, seed=settings.seed)
        show({"cohort": str(out)} | found, as_json=as_json, sentence=f"{out}: {sentence}")
        return
    cohort = sample_cohort(
        generator,
        cases_to_apply(masks, fold, settings.seed, splits),
        out,
        sampler,
        seed=settings.seed,
        n=n,
        label=outcome,
    )
    show(
        {"cohort": str(out), "cases": len(cohort)},
        as_json=as_json,
        sentence=f"{out}: {len(cohort)} synthetic volumes with masks.",
    )


@app.command()
def balance(
    cohort: CohortPath,
    out: OutPath,
    model: Annotated[Path, typer.Option(help="Generator of the same fold.", show_default=False)],
    segmenter: SegmenterPath,
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
    training = training_fold(cohort, fold, settings.seed, splits).training
    positive = int(training.outcomes.sum())
    wanted = plan_balance(len(training) - positive, positive, settings.balance)
    with (
        new_folder(out) as folder,
        progress("synthetic cases", wanted.negative + wanted.positive) as advance,
    ):
        balance_cohort(
            training,
            LatentGenerator.load(model),
            Segmenter.load(segmenter),
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
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """KID and FID per plane with their real-against-real floor; mask adherence with --segmenter."""
    from dataclasses import asdict

    from neonet3d.cohort.cohort import Cohort
    from neonet3d.cohort.patches import fit_patches, load_patches
    from neonet3d.generation.evaluate import compare_patches, mask_adherence, summarise
    from neonet3d.segmentation.predict import Segmenter

    held_out, drawn = cases_to_apply(real, fold, seed or 0, splits), Cohort.open(synthetic)
    grid, _ = fit_patches(drawn)
    _, normaliser = fit_patches(held_out)
    scores = compare_patches(
        load_patches(held_out, grid, normaliser),
        load_patches(drawn, grid, normaliser),
        seed=seed or 0,
    )
    adherence, of_real = {}, {}
    if segmenter is not None:
        reader = Segmenter.load(segmenter)
        adherence = summarise(mask_adherence(reader, drawn), seed=seed or 0)
        of_real = summarise(mask_adherence(reader, held_out), seed=seed or 0)
    if not as_json:
        show_fidelity(scores)
        if adherence:
            show_table(
                ("class", "Dice on synthetic", "Dice on real"),
                [(k, interval_text(v), interval_text(of_real[k])) for k, v in adherence.items()],
            )
    show(
        {
            "fidelity": [asdict(score) for score in scores],
            "adherence": {k: interval_json(v) for k, v in adherence.items()},
            "adherence_of_real": {k: interval_json(v) for k, v in of_real.items()},
        },
        as_json=as_json,
        sentence=f"Extractor: {scores[0].extractor}. Compare FID with its floor only.",
    )


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
