"""Small pictures of cases: the axial slice where the tumour is largest, with its contours."""

from __future__ import annotations

from threading import Lock

import numpy as np

from neonet3d.cohort.case import Case
from neonet3d.report.figures import new_figure, to_png
from neonet3d.report.palette import DARK, class_colours
from neonet3d.report.pictures import Labelled, draw_tile, largest_slice, tile, tumour_of
from neonet3d.types import LabelSchema

SIDE_IN = 1.6
_drawing = Lock()  # Matplotlib's caches are not for several threads


def thumbnail(case: Case, schema: LabelSchema) -> bytes:
    """PNG of a case; without contours where it has no mask.

    Raises:
        InputError: an image or a mask that cannot be read.
    """
    image, mask = case.read()
    colours = {} if mask is None else class_colours(schema.names)
    if mask is None:
        mask = image.with_data(np.zeros(image.shape, dtype=np.uint8))
    shown = Labelled(image, mask)
    index = largest_slice(shown.mask, "axial", tumour_of(schema))
    with _drawing:
        figure = new_figure(SIDE_IN, SIDE_IN, DARK)
        axes = figure.add_axes((0, 0, 1, 1))
        box = (0.0, 0.0, SIDE_IN, SIDE_IN)
        draw_tile(axes, tile(shown, "axial", index, schema), box, schema, colours)
        axes.set(xlim=(0, SIDE_IN), ylim=(0, SIDE_IN))
        axes.axis("off")
        return to_png(figure)
