"""How volumes and cohorts look in a notebook: middle slices and a line of facts, as HTML."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np
from jaxtyping import Shaped, UInt8

from neonet3d.types import Triple

PIXELS_PER_MM = 1.2
LARGEST = 220.0  # pixels, of the longest side
MOST_CLASSES = 16  # of whole numbers; more are grey values
COLOURS = np.array(
    [[0, 0, 0], [0, 158, 115], [86, 180, 233], [232, 112, 42], [240, 228, 66], [204, 121, 167]],
    dtype=np.uint8,
)


def slices_html(data: Shaped[np.ndarray, "x y z"], spacing_mm: Triple) -> str:
    """The middle slices of a volume in RAS+, patient's right on the left, in true proportions."""
    shown = _coloured(data)
    middle = [n // 2 for n in data.shape]
    x, y, z = (n * s for n, s in zip(data.shape, spacing_mm, strict=True))
    scale = min(PIXELS_PER_MM, LARGEST / max(x, y, z))
    cuts = (
        ("axial", shown[::-1, ::-1, middle[2]].swapaxes(0, 1), x, y),
        ("coronal", shown[::-1, middle[1], ::-1].swapaxes(0, 1), x, z),
        ("sagittal", shown[middle[0], ::-1, ::-1].swapaxes(0, 1), y, z),
    )
    return "".join(
        f'<img alt="{name} slice" width="{round(width * scale)}" height="{round(height * scale)}" '
        f'style="image-rendering: pixelated; margin-right: 6px" src="data:image/png;base64,'
        f'{base64.b64encode(_png(cut)).decode()}">'
        for name, cut, width, height in cuts
    )


def facts_html(facts: Mapping[str, object]) -> str:
    """``name: value`` in one paragraph; text is escaped."""
    return "<p>" + ", ".join(f"{escape(k)} {escape(str(v))}" for k, v in facts.items()) + "</p>"


def table_html(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; text is escaped."""
    top = "".join(f"<th>{escape(one)}</th>" for one in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    from matplotlib.image import imsave  # whoever only reads volumes does not wait for it

    stream = io.BytesIO()
    imsave(stream, np.ascontiguousarray(pixels), format="png")
    return stream.getvalue()


def _coloured(data: Shaped[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x y z 3"]:
    """Label maps by class, everything else in greys from the 1st to the 99th percentile."""
    if np.issubdtype(data.dtype, np.integer) and int(data.max(initial=0)) < MOST_CLASSES:
        wrapped = np.where(data == 0, 0, 1 + (data.astype(np.int64) - 1) % (len(COLOURS) - 1))
        coloured: np.ndarray = COLOURS[wrapped]
        return coloured
    low, high = np.percentile(data, (1, 99))
    grey = ((data - low) / max(float(high - low), 1e-6)).clip(0, 1) * 255
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
