"""``report.html``: one file that opens without a network, drawn from a run folder."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.volume import write_atomically
from neonet3d.errors import InputError
from neonet3d.report import figures, judgement_figures, pictures, wording
from neonet3d.report.cases import read_pairs, read_scans
from neonet3d.report.palette import DARK, LIGHT, Theme, class_colours
from neonet3d.study.results import StudyResults

CSS_PIXELS_PER_INCH = 96


@dataclass(frozen=True)
class Picture:
    """A figure by day and by night, as ``data:`` addresses, and its natural size in CSS pixels."""

    light: str
    dark: str
    width: int
    height: int

    @classmethod
    def draw(cls, figure: Callable[[Theme], bytes]) -> Picture:
        light, dark = figure(LIGHT), figure(DARK)
        # Width and height of a PNG stand at bytes 16 to 23 (PNG specification, IHDR).
        size = [n * CSS_PIXELS_PER_INCH // figures.DPI for n in struct.unpack(">II", light[16:24])]
        return cls(_address(light), _address(dark), *size)


@dataclass(frozen=True)
class Pictures:
    """All figures of the page; ``scans`` is None where the cohort is not at its place any more."""

    roc: Picture
    reliability: Picture
    decisions: Picture
    dice: Picture
    axial: Picture
    coronal: Picture
    scans: Picture | None
    pair_numbers: tuple[int, ...]
    scan_numbers: tuple[int, ...]


def write_report(run: Path) -> Path:
    """Draw ``run/report.html`` from what a study left in its run folder.

    Reads ``results.json``, ``manifest.json``, ``config.yaml``, the cohorts ``crops`` and
    ``fold-K/pairs``, the masks in ``fold-K/masks`` and the scans of the cohort that the manifest
    names. Cases appear by their number in the cohort's table, never by name.

    Returns:
        Path of the page.

    Raises:
        InputError: the folder holds no finished study, or a file of it cannot be used.
    """
    results = StudyResults.read(run)
    for name in ("manifest.json", "config.yaml"):
        if not (run / name).is_file():
            raise InputError(
                f"{run} holds no {name}, so there is nothing to report. Run the study again: what "
                "is done stays."
            )
    manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text("utf-8"))
    honest = [arm for arm in results.arms if not arm.leaky]
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            r=results,
            best=max(honest, key=lambda arm: arm.auc.value),
            n_honest=len(honest),
            arm_titles={arm.key: arm.title for arm in results.arms},
            methods=sorted({arm.auc.method for arm in results.arms}),
            manifest=manifest,
            config=(run / "config.yaml").read_text("utf-8"),
            pictures=_draw(run, manifest, results),
            colours=class_colours(results.classes),
            n_drawn=figures.MOST_ARMS,
            light=LIGHT,
            dark=DARK,
        )
    )
    out = run / "report.html"
    write_atomically(out, page.encode())
    return out


def _draw(run: Path, manifest: dict[str, Any], results: StudyResults) -> Pictures:
    crops = Cohort.open(run / "crops")
    pairs = read_pairs(run, crops, results)
    scans, drawn = [], None
    # A run folder may travel without its cohort: then the page says that the scans were not there.
    place = manifest.get("cohort")
    if place is not None and Path(place).is_dir():
        cohort = Cohort.open(place)
        scans = read_scans(run, cohort, results)
        drawn = Picture.draw(partial(pictures.whole_scans, scans, cohort.schema, results.outcome))
    axial, coronal = (
        Picture.draw(partial(pictures.pairs, pairs, plane, crops.schema, results.outcome))
        for plane in ("axial", "coronal")
    )
    return Pictures(
        roc=Picture.draw(partial(figures.roc, results)),
        reliability=Picture.draw(partial(judgement_figures.reliability, results)),
        decisions=Picture.draw(partial(judgement_figures.decisions, results)),
        dice=Picture.draw(partial(figures.dice, results)),
        axial=axial,
        coronal=coronal,
        scans=drawn,
        pair_numbers=tuple(pair.number for pair in pairs),
        scan_numbers=tuple(scan.number for scan in scans),
    )


def environment() -> Environment:
    """Where the templates are, and how they write numbers; text is escaped."""
    made = Environment(
        loader=PackageLoader("neonet3d.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": wording.number,
        "significant": wording.significant,
        "interval": wording.interval_text,
        "p_value": wording.p_value,
        "duration": wording.duration,
        "without_folders": wording.without_folders,
        "spoken": wording.spoken,
        "mean_and_deviation": wording.mean_and_deviation,
    }
    made.globals |= {"range_text": wording.range_text}
    return made


def _address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
