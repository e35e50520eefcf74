"""``report.md`` and ``curve.png`` of an augmentation study, drawn from its run folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from matplotlib.ticker import NullLocator

from neonet3d.cohort.volume import write_atomically
from neonet3d.metrics.interval import Interval
from neonet3d.report.figures import LINE_STYLES, MARKERS, new_figure, tidy, to_png
from neonet3d.report.palette import LIGHT, Theme
from neonet3d.report.wording import duration, interval_text, number, significant, spoken
from neonet3d.study.augmentation_results import AugmentationCell, AugmentationResults
from neonet3d.study.rivals import OURS


def write_augmentation_report(run: Path) -> Path:
    """Write both beside ``results.json``; the page's path."""
    results = AugmentationResults.read(run)
    write_atomically(run / "curve.png", curve(results, LIGHT))
    manifest = json.loads((run / "manifest.json").read_text())
    page = run / "report.md"
    write_atomically(page, ("\n".join(lines(results, manifest)) + "\n").encode())
    return page


def lines(results: AugmentationResults, manifest: dict[str, object]) -> Iterator[str]:
    """The page; ``manifest`` says from which start, data and configuration."""
    starts = manifest["starts"]
    assert isinstance(starts, list)
    yield f"# {results.title}: generators and what they add to segmenters"
    yield ""
    yield f"Run of {starts[-1][:10]} on {manifest['device']}; configuration"
    yield f"{manifest['config_hash']}, data {manifest['data_hash']}; neonet3d"
    yield f"{manifest['package']}, torch {manifest['torch']};"
    yield f"{duration(sum(results.seconds.values()))} in all."
    yield f"{results.n_held_out} real cases are held out; every figure is of them."
    yield ""
    yield from generators(results)
    yield ""
    yield from gains(results)
    yield ""
    yield from worth(results)
    yield ""
    yield "![Dice against the number of real cases](curve.png)"


def generators(results: AugmentationResults) -> Iterator[str]:
    """The first table, and how far below the rivals ours is."""
    yield "## Generators"
    yield ""
    yield f"Each trained on the same {results.n_pool} cases for the same seconds. KID and FID are"
    yield "means over planes; in the last line real images against each other at this n (the 97.5 %"
    yield "quantile of KID, the mean of FID). Two-sample AUC .5: not told apart, on region"
    yield "statistics and on ImageNet features of slices; Dice is that of one segmenter of the real"
    yield "cases on the images."
    yield ""
    classes = [spoken(name) for name in results.classes]
    head = ["generator", "seconds", "steps", "ms a volume", "KID", "FID", "AUC, regions"]
    head += ["AUC, slices", "MS-SSIM", *(f"Dice, {name}" for name in classes)]
    yield _row(head)
    yield _rule(head)
    for row in results.generators:
        steps = ", ".join(f"{name} {n}" for name, n in row.steps.items())
        yield _row(
            [
                f"**{row.key}**" if row.key == OURS else row.key,
                f"{row.seconds:.0f}",
                steps,
                f"{1000 * row.sampling_seconds:.0f}",
                number(row.kid, 3),
                number(row.fid, 1),
                interval_text(row.two_sample),
                interval_text(row.two_sample_slices),
                interval_text(row.ms_ssim),
                *(interval_text(row.adherence[name]) for name in results.classes),
            ]
        )
    floor = results.generators[0].fidelity
    yield _row(
        [
            "real",
            *("",) * 3,
            number(float(np.mean([score.kid_floor for score in floor])), 3),
            number(float(np.mean([score.fid_floor for score in floor])), 1),
            *("",) * 2,
            interval_text(results.ms_ssim_of_real),
            *(interval_text(results.adherence_of_real[name]) for name in results.classes),
        ]
    )
    yield ""
    ours = next(row for row in results.generators if row.key == OURS)
    for measure in ("kid", "fid"):
        margins = [
            f"{row.key} {_below(getattr(ours, measure), getattr(row, measure))}"
            for row in results.generators
            if row.key != OURS
        ]
        if margins:
            yield f"{measure.upper()} of {OURS} below that of: {', '.join(margins)}."
    least = float(np.mean([score.fid_floor for score in ours.fidelity]))
    above = [
        f"{row.key} {_below(ours.fid - least, row.fid - least)}"
        for row in results.generators
        if row.key != OURS
    ]
    if above:
        yield f"The same of FID above its floor at this n: {', '.join(above)}."
    for name, why in results.failed.items():
        yield f"{name} is not in the table. {why}"
    if results.membership is not None:
        yield f"Membership AUC of {OURS} by its loss: {interval_text(results.membership)}."


def _below(ours: float, theirs: float) -> str:
    """KID is unbiased, so a distance of nothing can be negative, and then there is no share."""
    return f"{100 * (1 - ours / theirs):.0f} %" if min(ours, theirs) > 0 else "(one is not above 0)"


def gains(results: AugmentationResults) -> Iterator[str]:
    """The second table: one for each class."""
    yield "## Segmenters"
    yield ""
    yield f"{results.steps} steps each, whatever the training set; mean of {results.seeds} seeds."
    yield "In brackets the gain over real cases alone in points of Dice, with the paired bootstrap"
    yield "interval over patients; HD95 is the median over cases, in mm, infinite where a class is"
    yield "missed in half of them. All of it is of the held-out cases that hold the class."
    for label in results.classes:
        cells = [cell for cell in results.cells if cell.label == label]
        numbers = sorted({cell.real_cases for cell in cells})
        yield ""
        yield f"### {spoken(label).capitalize()}"
        for n in numbers:
            of = {(c.network, c.arm): c for c in cells if c.real_cases == n}
            networks = list(dict.fromkeys(network for network, _ in of))
            head = [f"{n} real cases", *networks]
            yield ""
            yield _row(head)
            yield _rule(head)
            for arm, title in results.arms.items():
                yield _row([title, *(_cell(of[network, arm]) for network in networks)])
            yield from _inventions(of, results.arms, networks)


def _inventions(
    of: Mapping[tuple[str, str], AugmentationCell], arms: Mapping[str, str], networks: list[str]
) -> Iterator[str]:
    """How often a class is found where it is not, if there are such cases."""
    n = next(iter(of.values())).n_without
    if n == 0:
        return
    head = [f"found in the {n} without", *networks]
    yield ""
    yield _row(head)
    yield _rule(head)
    for arm, title in arms.items():
        shares = [of[network, arm].invented for network in networks]
        yield _row([title, *("" if one is None else f"{100 * one:.0f} %" for one in shares)])


def _cell(cell: AugmentationCell) -> str:
    far = "∞" if math.isinf(cell.hd95_mm.value) else significant(cell.hd95_mm.value, 2)
    text = f"{number(cell.dice.value, 3)}, {far} mm"
    if cell.arm == "real":
        return text
    return f"{text} ({_points(cell.gain)})"


def _points(gain: Interval) -> str:
    low, high = (number(100 * end, 1) for end in (gain.low, gain.high))
    sign = "+" if gain.value > 0 else ""
    return f"{sign}{number(100 * gain.value, 1)} [{low}, {high}]"


def worth(results: AugmentationResults) -> Iterator[str]:
    """How many real cases a synthetic set is worth."""
    yield "## What synthetic cases are worth"
    yield ""
    yield "Mean Dice over segmenters and classes, and the number of real cases that reach it alone,"
    yield "between the points of their own curve; a dash where it leaves the curve."
    yield ""
    head = ["training set", "real cases", "Dice", "of real cases alone", "worth in real cases"]
    yield _row(head)
    yield _rule(head)
    for one in results.worth:
        equal = "–" if one.equal_to is None else f"{one.equal_to:.0f}"
        yield _row(
            [
                results.arms[one.arm],
                str(one.real_cases),
                number(one.dice, 3),
                number(one.real_dice, 3),
                equal,
            ]
        )


def curve(results: AugmentationResults, theme: Theme) -> bytes:
    """Dice against the number of real cases, mean over segmenters, one panel for each class."""
    n = len(results.classes)
    figure = new_figure(max(3.2 * n, 5.0), 4.6, theme)
    panels = figure.subplots(1, n, squeeze=False)[0]
    for axes, label in zip(panels, results.classes, strict=True):
        tidy(axes, theme)
        axes.grid(color=theme.rule, linewidth=0.6)
        for i, (arm, title) in enumerate(results.arms.items()):
            cells = [c for c in results.cells if (c.arm, c.label) == (arm, label)]
            numbers = sorted({c.real_cases for c in cells})
            means = [np.mean([c.dice.value for c in cells if c.real_cases == m]) for m in numbers]
            axes.plot(
                numbers,
                means,
                color=theme.series[i % len(theme.series)],
                linestyle=LINE_STYLES[i % len(LINE_STYLES)],
                marker=MARKERS[i % len(MARKERS)],
                markersize=4,
                label=title,
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(numbers, [str(m) for m in numbers])
        axes.set_title(spoken(label), color=theme.ink, size=11)
        axes.set_xlabel("real cases")
    panels[0].set_ylabel("Dice, mean over segmenters")
    handles, titles = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        titles,
        loc="lower center",
        ncols=2,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=9,
    )
    figure.subplots_adjust(left=0.09, right=0.98, top=0.92, bottom=0.33, wspace=0.25)
    return to_png(figure)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(head: list[str]) -> str:
    return "|" + "---|" * len(head)
