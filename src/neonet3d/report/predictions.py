"""A page of predictions: for each case how sure the classifier is, and where it looks.

One file that opens without a network. Cases appear by their number in the cohort's table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from neonet3d.classification.certainty import Prediction
from neonet3d.classification.explain import occlusion
from neonet3d.classification.predict import Classifier
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import load_patches, patch_window
from neonet3d.cohort.volume import Volume, write_atomically
from neonet3d.engine.artefact import ArtefactCard
from neonet3d.errors import InputError
from neonet3d.generation.counterfactual import draw_counterfactuals
from neonet3d.generation.generator import LatentGenerator
from neonet3d.report.figures import new_figure, to_png
from neonet3d.report.html import Picture, environment
from neonet3d.report.palette import DARK, LIGHT, Theme, class_colours
from neonet3d.report.pictures import (
    Box,
    Labelled,
    Plane,
    Tile,
    cut,
    draw_tile,
    fit_box,
    largest_slice,
    tile,
    tumour_of,
)
from neonet3d.types import LabelSchema

TILE_IN, LABEL_IN, GAP_IN = 2.5, 0.8, 0.06
STEPS = 8  # of the generator's flow, each way
STRONGEST = 0.75  # opacity of the largest value of a map
FOR, AGAINST = "#f08a4b", "#56b4e9"
PLANES: tuple[Plane, Plane] = ("axial", "coronal")


OCCLUSION, COUNTERFACTUAL = "Speaks for it", "Generator: 1 less 0"


@dataclass(frozen=True)
class PredictedCase:
    """A patch and what is laid over it.

    Attributes:
        number: of the case in its cohort, from 1.
        shown: the patch and its mask.
        maps: by title, on the patch's grid. Occlusion: positive speaks for the outcome;
            counterfactual: positive is brighter with it.
    """

    number: int
    shown: Labelled
    maps: Mapping[str, Float[np.ndarray, "x y z"]]


def look_at(
    classifier: Classifier,
    cases: Cohort,
    numbers: Sequence[int],
    generator: LatentGenerator | None,
) -> list[PredictedCase]:
    """Patches of some cases with the occlusion map, and the counterfactual of a generator.

    Args:
        cases: patches with masks.
        numbers: of the cases in their cohort.
        generator: of the same fold as the classifier.

    Raises:
        InputError: no PattenNet, a case without a mask, or a generator that draws something else
            or was trained on one of the cases.
    """
    card = classifier.card
    if generator is not None:
        require_sibling(generator.card, card, cases)
    patches = load_patches(cases, *card.reading)
    labels, invert = patches.required_label_maps().numpy(), card.reading.normaliser.invert
    maps = {OCCLUSION: occlusion(classifier, patches).numpy()}
    if generator is not None:
        drawn = draw_counterfactuals(
            generator, load_patches(cases, *generator.card.reading), steps=STEPS
        )
        maps[COUNTERFACTUAL] = drawn.difference.numpy()
    looked_at = []
    for i, (case, number) in enumerate(zip(cases, numbers, strict=True)):
        scan = case.read_image()
        affine = patch_window(scan, card.grid, name=case.name).affine(scan)
        image = Volume(invert(patches.images[i].numpy()).astype(np.float32), affine)
        shown = Labelled(image, Volume(labels[i], affine))
        looked_at.append(PredictedCase(number, shown, {title: of[i] for title, of in maps.items()}))
    return looked_at


def require_sibling(generator: ArtefactCard, card: ArtefactCard, cases: Cohort) -> None:
    """Refuse a generator that is not of the classifier's fold, for what it draws of these cases.

    Raises:
        InputError: other classes, outcome or grid, or it was trained on one of the cases.
    """
    generator.refuse_other_classes(cases.schema)
    generator.refuse_training_cases(cases)
    if (generator.grid, generator.outcome) != (card.grid, card.outcome):
        raise InputError(
            f"The generator draws {generator.outcome} on {generator.grid}, but the classifier "
            f"reads {card.outcome} on {card.grid}. Give the generator of the same fold."
        )


def write_predictions(
    out: Path,
    cases: Sequence[PredictedCase],
    found: Prediction,
    card: ArtefactCard,
    *,
    prevalence: float,
) -> Path:
    """Write the page of a PattenNet's predictions.

    Args:
        cases: in the order of ``found``.
        found: what ``Classifier.assess`` said.
        card: of the classifier.
        prevalence: of the outcome among the training cases.
    """
    schema, colours = card.schema_, class_colours(card.classes)
    rows = [
        {
            "number": case.number,
            "probability": found.probability[i],
            "low": found.low[i],
            "high": found.high[i],
            "may_be": [value for value in (0, 1) if found.may_be[i][value]],
            "familiarity": found.familiarity[i],
            "unfamiliar": bool(found.unfamiliar[i]),
            "maps": list(case.maps),
            "picture": Picture.draw(partial(_montage, case, schema)),
        }
        for i, case in enumerate(cases)
    ]
    page = (
        environment()
        .get_template("predictions.html.j2")
        .render(
            title=f"Predictions of {card.outcome}",
            card=card,
            n_training=len(card.training_cases),
            prevalence=prevalence,
            cases=rows,
            where="where the tumour is largest" if tumour_of(schema) else "through the middle",
            colours=colours,
            speaks={"for": FOR, "against": AGAINST},
            light=LIGHT,
            dark=DARK,
        )
    )
    write_atomically(out, page.encode())
    return out


def _montage(case: PredictedCase, schema: LabelSchema, theme: Theme) -> bytes:
    """A row for each plane: the patch, its mask, then each map over it, as a share of its largest
    value anywhere in the patch.
    """
    titles = ["Scan", "Its mask", *case.maps]
    size = TILE_IN + GAP_IN
    width, height = LABEL_IN + len(titles) * size, 0.3 + len(PLANES) * size
    figure = new_figure(width, height, theme)
    axes = figure.add_axes((0, 0, 1, 1))
    for column, title in enumerate(titles):
        left = LABEL_IN + column * size
        place = (left + TILE_IN / 2, height - 0.22)
        axes.text(*place, title, ha="center", size=9.5, color=theme.ink)
        for row, plane in enumerate(PLANES):
            box = (left, height - 0.3 - row * size - TILE_IN, TILE_IN, TILE_IN)
            index = largest_slice(case.shown.mask, plane, tumour_of(schema))
            one = tile(case.shown, plane, index, schema)
            outlined = class_colours(schema.names) if column == 1 else {}
            draw_tile(axes, one, box, schema, outlined)
            if title in case.maps:
                values = case.maps[title]
                share = cut(values, plane, index) / (np.abs(values).max() or 1.0)
                _lay_over(axes, one, share, box)
            if column == 0:
                axes.text(0, box[1] + TILE_IN / 2, plane.capitalize(), size=9.5, color=theme.ink)
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return to_png(figure)


def _lay_over(axes: Axes, one: Tile, share: Float[np.ndarray, "h w"], box: Box) -> None:
    left, bottom, width, height = fit_box(one, box)
    colours = np.empty((*share.shape, 4))
    for colour, where in ((FOR, share >= 0), (AGAINST, share < 0)):
        colours[where, :3] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    colours[..., 3] = STRONGEST * np.abs(share)
    axes.imshow(
        colours,
        origin="lower",
        extent=(left, left + width, bottom, bottom + height),
        interpolation="bilinear",
        aspect="auto",
    )
