"""neonet3d classify: train, predict, explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    interval_json,
    interval_text,
    resolve,
    show,
    show_table,
    training_fold,
)
from neonet3d.errors import InputError

if TYPE_CHECKING:
    from neonet3d.classification.certainty import Prediction
    from neonet3d.classification.predict import Classifier
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.cohort.folds import Fold
    from neonet3d.cohort.patches import PatchReading

AllowNoTumour = Annotated[
    bool,
    typer.Option("--allow-no-tumour", help="Take patches of the liver's middle without a tumour."),
]

ModelName = Literal["patten", "baseline", "radiomics", "clinical"]

app = typer.Typer(
    help="NeoCls: train PattenNet, predict outcomes, explain them.", no_args_is_help=True
)


@app.command()
def train(
    cohort: CohortPath,
    out: OutPath,
    encoder: Annotated[
        Path | None,
        typer.Option(
            help="Autoencoder of the same training cases (MODEL/autoencoder of 'generate train', "
            "its anatomy prior beside it); without it both are made first, in OUT.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        ModelName,
        typer.Option(
            help="PattenNet, a network trained end to end (baseline.network), radiomics, or the "
            "table's columns alone (clinical.columns)."
        ),
    ] = "patten",
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    allow_no_tumour: AllowNoTumour = False,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Train a classifier on a cohort with outcomes; AUC on the held-out cases where there are any.

    Writes OUT/MODEL; PattenNet's encoder too where none is given: OUT/autoencoder, and OUT/anatomy
    where there are masks. With an official split in the cohort, the test AUC is that of its test
    cases, which nothing was fitted on.
    """
    import numpy as np

    from neonet3d.classification.predict import Classifier
    from neonet3d.classification.train import train_patten
    from neonet3d.classification.train_baseline import train_baseline
    from neonet3d.classification.train_clinical import train_clinical
    from neonet3d.classification.train_radiomics import train_radiomics
    from neonet3d.classification.training_set import has_masks
    from neonet3d.classification.tumourless import refuse_without_tumour
    from neonet3d.generation.latents import FoldLatents
    from neonet3d.generation.train import fit_anatomy, fit_reading, train_autoencoder
    from neonet3d.metrics.discrimination import auc_over_patients, require_one_label_each

    settings = resolve(preset, config, overrides, seed)
    chosen = training_fold(cohort, fold, settings.seed, splits)
    # A cohort without labels or tumours is refused before an encoder is trained.
    _ = chosen.training.outcomes
    if encoder is not None and model == "clinical":
        raise InputError("A clinical model reads no scans. Leave --encoder out.")
    if {case.outcome for case in chosen.held_out} == {0, 1}:
        of_rows = np.array([case.participant for case in chosen.held_out])
        require_one_label_each(chosen.held_out.outcomes, of_rows)
    if not allow_no_tumour and model != "clinical":
        refuse_without_tumour(chosen.training)
        refuse_without_tumour(chosen.held_out)
    place = out / model
    match model:
        case "patten":
            if encoder is None:
                encoder = out / "autoencoder"
                train_autoencoder(chosen, settings, encoder)
                if settings.classifier.needs_anatomy and has_masks(chosen):
                    fit_anatomy(FoldLatents(chosen, encoder), settings, out)
            train_patten(chosen, encoder, settings, place, allow_no_tumour=allow_no_tumour)
        case "clinical":
            train_clinical(chosen, settings, place)
        case "baseline" | "radiomics":
            reading = fit_reading(chosen) if encoder is None else _reading_of(encoder, chosen)
            fit = train_baseline if model == "baseline" else train_radiomics
            fit(chosen, reading, settings, place, allow_no_tumour=allow_no_tumour)
    classifier = Classifier.load(place)
    result: dict[str, object] = {
        "model": str(place),
        "fold": chosen.name,
        "training_cases": len(chosen.training),
    }
    n, kind = len(chosen.training), classifier.card.kind
    sentence = f"{place}: {kind} of {n} cases ({chosen.name})."
    if {case.outcome for case in chosen.held_out} == {0, 1}:
        probability = classifier.predict(chosen.held_out, allow_no_tumour=allow_no_tumour)
        patients = [case.participant for case in chosen.held_out]
        interval = auc_over_patients(
            chosen.held_out.outcomes, probability, patients, seed=settings.seed
        )
        result |= {"test_auc": interval.value, "test": interval_json(interval)}
        sentence += f"\nTest AUC {interval_text(interval)} ({interval.method})."
    elif len(chosen.held_out):
        sentence += "\nNo test AUC: the held-out cases do not have outcomes of both classes."
    show(result, as_json=as_json, sentence=sentence)


def _reading_of(encoder: Path, fold: Fold) -> PatchReading:
    """What the encoder of the same fold says of patches.

    Raises:
        InputError: no autoencoder, or one of other classes, or that saw held-out cases.
    """
    from neonet3d.engine.artefact import read_card

    card = read_card(encoder, kind="Autoencoder")
    card.refuse_other_classes(fold.training.schema)
    card.refuse_training_cases(fold.held_out)
    return card.reading


@app.command()
def predict(
    model: ModelPath,
    cohort: CohortPath,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    allow_no_tumour: AllowNoTumour = False,
    page: Annotated[
        Path | None,
        typer.Option(
            help="HTML file to write: each case with its slices, and where the classifier looks. "
            "Of a PattenNet, on cases with masks.",
            show_default=False,
        ),
    ] = None,
    generator: Annotated[
        Path | None,
        typer.Option(
            help="Generator of the same fold, for the page: what it believes the outcome changes.",
            show_default=False,
        ),
    ] = None,
    seed: DivisionSeed = 0,
    as_json: AsJson = False,
) -> None:
    """Probability of the outcome for each case of a cohort of patches.

    A PattenNet says how sure it is, too: an interval (how far other training cases would have moved
    the probability), the outcomes in a prediction set of 90 % coverage, and whether the case is
    like those of training at all.
    """
    import numpy as np

    from neonet3d.classification.predict import Classifier

    if generator is not None and page is None:
        raise InputError("--generator draws for the page. Say where to write it: --page FILE.")
    classifier = Classifier.load(model)
    if page is not None and classifier.card.kind != "PattenNet":
        raise InputError(f"Pages are of a PattenNet, and {model} is a {classifier.card.kind}.")
    outcome = classifier.card.outcome
    cases = cases_to_apply(cohort, fold, seed, splits)
    seen = classifier.card.count_training_cases(cases)
    names = [case.name for case in cases]
    if classifier.card.kind == "PattenNet":
        found = classifier.assess(cases, allow_no_tumour=allow_no_tumour)
        if page is not None:
            _write_page(page, classifier, found, cases, cohort, generator)
        probability = [round(float(p), 4) for p in found.probability]
        limits = np.stack([found.low, found.high], axis=1).round(4).tolist()
        sets = [[value for value in (0, 1) if of_case[value]] for of_case in found.may_be]
        certainty = {
            name: {
                "interval": limits[i],
                "may_be": sets[i],
                "familiarity": round(float(found.familiarity[i]), 4),
                "unfamiliar": bool(found.unfamiliar[i]),
            }
            for i, name in enumerate(names)
        }
        more: list[tuple[str, ...]] = [
            (
                f"{low:.2f} to {high:.2f}",
                " or ".join(map(str, of_case)) or "neither",
                "NO" if strange else "yes",
            )
            for (low, high), of_case, strange in zip(limits, sets, found.unfamiliar, strict=True)
        ]
    else:
        values = classifier.predict(cases, allow_no_tumour=allow_no_tumour)
        probability, certainty = [round(float(p), 4) for p in values], {}
        more = [()] * len(names)
    if not as_json:
        head = ("case", f"probability of {outcome}", "95 % interval", "90 % set", "like training")
        rows = [(*first, *rest) for *first, rest in zip(names, probability, more, strict=True)]
        show_table(head if certainty else head[:2], rows)
    show(
        {
            "outcome": outcome,
            "model": classifier.card.model_dump(include={"kind", "weights_sha256"}),
            "prevalence_of_training": classifier.prevalence,
            "probability": dict(zip(names, probability, strict=True)),
            "certainty": certainty,
            "training_cases_among_them": seen,
        }
        | ({} if page is None else {"page": str(page)}),
        as_json=as_json,
        sentence=("" if page is None else f"Page: {page}\n")
        + "Probabilities are at the prevalence of the training cases, "
        f"{classifier.prevalence:.2f}. "
        + (f"{seen} of these cases trained the model: this is no test of it. " if seen else "")
        + "Research use only; not a medical device.",
    )


def _write_page(
    page: Path,
    classifier: Classifier,
    found: Prediction,
    cases: Cohort,
    cohort: Path,
    generator: Path | None,
) -> None:
    """Cases by their row in the whole cohort's table, not in the fold that was chosen of it."""
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.generation.generator import LatentGenerator
    from neonet3d.report.predictions import look_at, write_predictions

    drawing = None if generator is None else LatentGenerator.load(generator)
    rows = {case.name: number for number, case in enumerate(Cohort.open(cohort), start=1)}
    looked_at = look_at(classifier, cases, [rows[case.name] for case in cases], drawing)
    write_predictions(page, looked_at, found, classifier.card, prevalence=classifier.prevalence)


@app.command()
def explain(
    model: ModelPath,
    cohort: CohortPath,
    out: OutPath,
    generator: Annotated[
        Path | None,
        typer.Option(
            help="Generator of the same fold: what does it believe that the outcome changes?",
            show_default=False,
        ),
    ] = None,
    fold: FoldChoice = None,
    splits: SplitsFile = None,
    allow_no_tumour: AllowNoTumour = False,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Where a PattenNet looks, as NIfTI maps that lie on the scans.

    Writes attention, Grad-CAM and occlusion of each case; with --generator the counterfactual
    difference too, in units of the scan's reference intensity.
    """
    from neonet3d.classification.predict import Classifier
    from neonet3d.cli.maps import write_maps

    settings = resolve(preset, config, overrides, seed)
    classifier = Classifier.load(model)
    cases = cases_to_apply(cohort, fold, settings.seed, splits)
    kinds = write_maps(
        out,
        classifier,
        cases,
        generator,
        settings.sampler,
        allow_no_tumour=allow_no_tumour,
    )
    show(
        {"maps": str(out), "cases": len(cases), "kinds": kinds},
        as_json=as_json,
        sentence=f"{out}: {', '.join(kinds)} of {len(cases)} cases. "
        "Research use only; not a medical device.",
    )
