"""Colours of the report, each defined once: of the page, of curves and of classes.

Classes and curves are from Okabe & Ito's set, which people with any kind of colour blindness tell
apart (https://jfly.uni-koeln.de/color/); no figure speaks by colour alone. Text and lines stand
out from the page as WCAG 2.2 AA asks: 4.5:1 and 3:1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Page and figures by day, or by night.

    Attributes:
        paper: background.
        ink: text.
        muted: captions and axes.
        rule: lines of tables and grids.
        link: links and focus.
        shade: background of what is set apart.
        series: of curves and markers, in order.
    """

    paper: str
    ink: str
    muted: str
    rule: str
    link: str
    shade: str
    series: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b1e22",
    muted="#596069",
    rule="#d8dce1",
    link="#0b5cad",
    shade="#f5f6f8",
    series=("#0072b2", "#c24e00", "#00795a", "#a3457c", "#7a5c00", "#5b5fc7"),
)
DARK = Theme(
    paper="#14171b",
    ink="#e7e9ec",
    muted="#a5adb7",
    rule="#343b44",
    link="#8fbcf4",
    shade="#1d2126",
    series=("#56b4e9", "#f08a4b", "#2fc296", "#dd8fbd", "#e3c04b", "#a7aaf5"),
)

_CLASSES = {
    "liver": "#009e73",
    "portal_vein": "#56b4e9",
    "hepatic_vein": "#e8702a",
    "tumour": "#f0e442",
}
_OTHERS = ("#cc79a7", "#e69f00", "#0072b2", "#ffffff")


def class_colours(classes: Sequence[str]) -> dict[str, str]:
    """Colour of every class but the background, as ``#rrggbb``.

    Classes that are not the liver's take the remaining colours in their order, over and over.
    """
    named = [name for name in classes if name != "background"]
    others = [name for name in named if name not in _CLASSES]
    taken = {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}
    return {name: _CLASSES.get(name) or taken[name] for name in named}
