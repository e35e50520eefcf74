"""Pictures of scans as PNG bytes: synthetic patches beside real ones, masks on whole scans.

Slices are shown as radiologists read them: the patient's right on the viewer's left, anterior or
superior up, one millimetre the same length in every direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from scipy import ndimage

from neonet3d.cohort.volume import Volume
from neonet3d.report.figures import literal, new_figure, to_png
from neonet3d.report.palette import Theme, class_colours
from neonet3d.report.wording import spoken
from neonet3d.types import LabelSchema

Plane = Literal["axial", "coronal"]
Box = tuple[float, float, float, float]  # left, bottom, width, height in inches

WIDTH_IN = 11.5  # of the page: 72 rem less its margins
LABEL_IN = 0.95
WINDOW = 1.25  # the brightest grey, where the liver's median is 1
ZOOM_MARGIN_MM = 15.0
LINE_WIDTHS = {"liver": 0.9, "tumour": 1.6}


@dataclass(frozen=True)
class Labelled:
    """An image and a mask on its grid."""

    image: Volume
    mask: Volume


@dataclass(frozen=True)
class Pair:
    """A held-out patch and the synthetic one on its mask.

    Attributes:
        number: of the case in its cohort, from 1; figures show no names.
    """

    number: int
    outcome: int
    real: Labelled
    synthetic: Labelled


@dataclass(frozen=True)
class Scan:
    """A held-out scan with its reference mask, and NeoSeg's mask on the same grid."""

    number: int
    outcome: int
    reference: Labelled
    predicted: Volume


@dataclass(frozen=True)
class Tile:
    """A slice, oriented for the viewer, row 0 at the bottom.

    Attributes:
        grey: intensities in units of the reference level, ``(rows, columns)``.
        labels: classes on the same pixels.
        spacing_mm: height and width of a pixel.
    """

    grey: Float[np.ndarray, "h w"]
    labels: np.ndarray
    spacing_mm: tuple[float, float]

    @property
    def size_mm(self) -> tuple[float, float]:
        rows, columns = self.grey.shape
        return rows * self.spacing_mm[0], columns * self.spacing_mm[1]


def spread_over_outcomes(outcomes: Sequence[int], n: int) -> list[int]:
    """Positions of up to ``n`` cases, evenly spread over each outcome, half of them positive.

    Each outcome's cases are cut, in their order, into equal stretches and the middle one of every
    stretch is taken, so nothing about a case but its outcome and its place can choose it. Where
    an outcome has too few cases the other fills up.
    """
    positive = [i for i, outcome in enumerate(outcomes) if outcome == 1]
    negative = [i for i, outcome in enumerate(outcomes) if outcome != 1]
    n_negative = min(len(negative), n - min(len(positive), n // 2))
    n_positive = min(len(positive), n - n_negative)
    chosen = []
    for places, k in ((positive, n_positive), (negative, n_negative)):
        chosen += [places[(2 * i + 1) * len(places) // (2 * k)] for i in range(k)]
    return sorted(chosen)


def reference_level(shown: Labelled, schema: LabelSchema) -> float:
    """Intensity that is shown as 1: the liver's median, else the 99.5th percentile above zero.

    Real and synthetic images are each divided by their own, so that one window fits both.
    """
    image = shown.image.data
    if "liver" in schema:
        liver = image[shown.mask.data == schema.value("liver")]
        if liver.size and np.median(liver) > 0:
            return float(np.median(liver))
    positive = image[image > 0]
    # An image without a positive voxel is black in every window.
    return float(np.percentile(positive, 99.5)) if positive.size else 1.0


def largest_slice(mask: Volume, plane: Plane, value: int | None) -> int:
    """Slice with the largest area of a class, the first of equals; the middle one without it."""
    axis = {"axial": 2, "coronal": 1}[plane]
    others = tuple(i for i in range(3) if i != axis)
    area = (mask.data == value).sum(axis=others) if value is not None else np.zeros(1)
    return int(area.argmax()) if area.any() else mask.shape[axis] // 2


def tile(shown: Labelled, plane: Plane, index: int, schema: LabelSchema) -> Tile:
    """A slice in the units of ``reference_level``, with its classes."""
    x, y, z = shown.image.spacing_mm
    grey = cut(shown.image.data, plane, index) / reference_level(shown, schema)
    spacing_mm = (y, x) if plane == "axial" else (z, x)
    return Tile(grey, cut(shown.mask.data, plane, index), spacing_mm)


def cut(values: Shaped[np.ndarray, "x y z"], plane: Plane, index: int) -> Shaped[np.ndarray, "h w"]:
    """A slice of an array in RAS+, turned to the viewer, row 0 at the bottom."""
    return values[::-1, :, index].T if plane == "axial" else values[::-1, index].T


def pairs(
    chosen: Sequence[Pair], plane: Plane, schema: LabelSchema, outcome: str, theme: Theme
) -> bytes:
    """One column for each case: real, real with mask, synthetic on that mask, with mask."""
    tumour = tumour_of(schema)
    columns = []
    for pair in chosen:
        tiles = [
            tile(one, plane, largest_slice(one.mask, plane, tumour), schema)
            for one in (pair.real, pair.synthetic)
        ]
        columns.append([(one, outlined) for one in tiles for outlined in (False, True)])
    titles = [_title(pair.number, outcome, pair.outcome) for pair in chosen]
    rows = ["Real", "Real,\nits mask", "Synthetic", "Synthetic,\nthat mask"]
    return _montage(columns, titles, rows, schema, theme)


def whole_scans(chosen: Sequence[Scan], schema: LabelSchema, outcome: str, theme: Theme) -> bytes:
    """One column for each scan: reference, NeoSeg, and both around the tumour."""
    tumour = tumour_of(schema)
    columns, closeups = [], []
    for scan in chosen:
        index = largest_slice(scan.reference.mask, "axial", tumour)
        # The reference gives the window of both, so that they differ in their contours alone.
        drawn = tile(scan.reference, "axial", index, schema)
        found = replace(drawn, labels=cut(scan.predicted.data, "axial", index))
        columns.append([(drawn, True), (found, True)])
        closeups.append(_closeup(drawn, found, tumour))
    titles = [_title(scan.number, outcome, scan.outcome) for scan in chosen]
    rows = ["Reference", "NeoSeg", "Tumour:\nreference\nsolid,\nNeoSeg\ndashed"]
    return _montage(columns, titles, rows, schema, theme, closeups)


def _montage(
    columns: Sequence[Sequence[tuple[Tile, bool]]],
    titles: Sequence[str],
    rows: Sequence[str],
    schema: LabelSchema,
    theme: Theme,
    closeups: Sequence[tuple[Tile, Tile]] = (),
) -> bytes:
    """Tiles in columns of one width, a last row of close-ups; one unit of the axes is an inch."""
    gap, head = 0.06, 0.48
    per_row = max(len(columns), 4)  # fewer columns make the figure narrower, not the tiles wider
    width = (WIDTH_IN - LABEL_IN) / per_row - gap
    proportion = max(np.divide(*column[0][0].size_mm) for column in columns)
    heights = [width * proportion] * len(columns[0]) + [width] * bool(closeups)
    total = (LABEL_IN + len(columns) * (width + gap), head + sum(heights) + gap * len(heights))
    figure = new_figure(*total, theme)
    axes = figure.add_axes((0, 0, 1, 1))
    colours = class_colours(schema.names)
    bottom = total[1] - head
    for row, height in enumerate(heights):
        bottom -= height + (gap if row else 0)
        axes.text(0, bottom + height / 2, rows[row], va="center", size=9.5, color=theme.ink)
        for i, column in enumerate(columns):
            box = (LABEL_IN + i * (width + gap), bottom, width, height)
            if row < len(column):
                one, outlined = column[row]
                draw_tile(axes, one, box, schema, colours if outlined else {})
            else:
                tumour = {"tumour": colours["tumour"]} if "tumour" in colours else {}
                draw_tile(axes, closeups[i][0], box, schema, tumour)
                draw_outline(axes, closeups[i][1], box, schema, tumour, dashed=True)
    for i, title in enumerate(titles):
        place = (LABEL_IN + i * (width + gap) + width / 2, total[1] - head + 0.07)
        axes.text(
            *place, title, ha="center", va="bottom", size=9.5, color=theme.ink, linespacing=1.25
        )
    axes.set(xlim=(0, total[0]), ylim=(0, total[1]))
    axes.axis("off")
    return to_png(figure)


def draw_tile(
    axes: Axes, one: Tile, box: Box, schema: LabelSchema, colours: Mapping[str, str]
) -> None:
    """A slice on black, with the contours of the classes that have a colour."""
    axes.add_patch(Rectangle(box[:2], box[2], box[3], color="black", linewidth=0, zorder=-1))
    left, bottom, width, height = fit_box(one, box)
    axes.imshow(
        one.grey,
        cmap="gray",
        vmin=0,
        vmax=WINDOW,
        origin="lower",
        extent=(left, left + width, bottom, bottom + height),
        interpolation="bilinear",
        aspect="auto",
    )
    draw_outline(axes, one, box, schema, colours)


def draw_outline(
    axes: Axes,
    one: Tile,
    box: Box,
    schema: LabelSchema,
    colours: Mapping[str, str],
    *,
    dashed: bool = False,
) -> None:
    """Contours halfway between voxels inside and outside; the liver's around what lies in it."""
    left, bottom, width, height = fit_box(one, box)
    rows, columns = one.labels.shape
    x = left + (np.arange(columns) + 0.5) / columns * width
    y = bottom + (np.arange(rows) + 0.5) / rows * height
    for name, colour in colours.items():
        inside: Bool[np.ndarray, "h w"] = one.labels == schema.value(name)
        if name == "liver":
            inside = ndimage.binary_fill_holes(inside)
        if inside.all() or not inside.any():
            continue
        axes.contour(
            x, y, inside.astype(float), levels=[0.5], colors=[colour],
            linewidths=LINE_WIDTHS.get(name, 1.2), linestyles=["dashed" if dashed else "solid"],
        )  # fmt: skip


def fit_box(one: Tile, box: Box) -> Box:
    """The largest place in the box that keeps the slice's proportions, in its middle."""
    left, bottom, width, height = box
    tall, wide = one.size_mm
    scale = min(width / wide, height / tall)
    return (
        left + (width - wide * scale) / 2,
        bottom + (height - tall * scale) / 2,
        wide * scale,
        tall * scale,
    )


def _closeup(drawn: Tile, found: Tile, tumour: int | None) -> tuple[Tile, Tile]:
    """Both tiles cut to a square around the reference's tumour, or to their middle without one."""
    places = np.argwhere(drawn.labels == tumour) if tumour is not None else np.empty((0, 2))
    shape, spacing = np.array(drawn.grey.shape), np.array(drawn.spacing_mm)
    first, last = (places.min(0), places.max(0) + 1) if len(places) else (shape // 2, shape // 2)
    side_mm = ((last - first) * spacing).max() + 2 * ZOOM_MARGIN_MM
    half = np.rint(side_mm / spacing / 2).astype(int)
    centre = (first + last) // 2
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half, shape)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return (
        replace(drawn, grey=drawn.grey[window], labels=drawn.labels[window]),
        replace(found, grey=found.grey[window], labels=found.labels[window]),
    )


def tumour_of(schema: LabelSchema) -> int | None:
    """Value of the tumour, where there is one."""
    return schema.value("tumour") if "tumour" in schema else None


def _title(number: int, outcome: str, value: int) -> str:
    return f"Case {number}\n{literal(spoken(outcome))} = {value}"
