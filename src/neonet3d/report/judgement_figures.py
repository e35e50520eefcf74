"""Charts of what comes after the AUC: reliability and decision curves, as PNG bytes."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neonet3d.report.figures import LINE_STYLES, MOST_ARMS, literal, new_figure, tidy, to_png
from neonet3d.report.palette import Theme
from neonet3d.study.results import Arm, StudyResults

WIDTH_IN = 5.4
LINE_IN = 0.24  # of a legend
REFERENCE_STYLES = ((0, (2, 3)), (0, ()))  # dotted, solid


def reliability(results: StudyResults, theme: Theme) -> bytes:
    """Observed share against mean probability in bins of each arm; the diagonal is the truth."""
    arms = results.arms[:MOST_ARMS]
    figure, axes = _with_legend(arms, theme, ["what calibrated means"], aspect=1.0)
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=REFERENCE_STYLES[0])
    for i, arm in enumerate(arms):
        bins = arm.judgement.reliability
        x = [one.mean_probability for one in bins]
        y = [one.observed.value for one in bins]
        # The intervals of several arms would hide each other: those of the first alone are drawn.
        if i == 0:
            low = [one.observed.value - one.observed.low for one in bins]
            high = [one.observed.high - one.observed.value for one in bins]
            axes.errorbar(
                x, y, [low, high], fmt="none", ecolor=theme.series[0], elinewidth=1, alpha=0.6
            )
        axes.plot(x, y, marker="o", markersize=4.5, **_style(i, theme))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("Mean predicted probability")
    axes.set_ylabel("Observed share")
    return to_png(figure)


def decisions(results: StudyResults, theme: Theme) -> bytes:
    """Net benefit of each arm over the threshold probability, beside treating all and none."""
    arms = results.arms[:MOST_ARMS]
    figure, axes = _with_legend(arms, theme, ["treat all", "treat none"], aspect=0.7)
    first = arms[0].judgement.decisions
    axes.plot(
        first.threshold,
        first.treat_all,
        color=theme.muted,
        linewidth=1,
        linestyle=REFERENCE_STYLES[0],
    )
    axes.axhline(0, color=theme.muted, linewidth=1, linestyle=REFERENCE_STYLES[1])
    axes.fill_between(
        first.threshold, first.low, first.high, color=theme.series[0], alpha=0.15, linewidth=0
    )
    for i, arm in enumerate(arms):
        curve = arm.judgement.decisions
        axes.plot(curve.threshold, curve.model, **_style(i, theme))
    largest = max(max(arm.judgement.decisions.model) for arm in arms)
    axes.set(xlim=(first.threshold[0], first.threshold[-1]))
    axes.set_ylim(-0.1, max(0.05, 1.15 * max(largest, first.treat_all[0])))
    axes.set_xlabel("Threshold probability")
    axes.set_ylabel("Net benefit")
    return to_png(figure)


def _style(i: int, theme: Theme) -> dict[str, Any]:
    return {
        "color": theme.series[i % len(theme.series)],
        "linestyle": LINE_STYLES[i % len(LINE_STYLES)],
        "linewidth": 2,
    }


def _with_legend(
    arms: tuple[Arm, ...], theme: Theme, references: list[str], *, aspect: float
) -> tuple[Figure, Axes]:
    """Axes with a legend below: a line for each arm, then what it is compared with."""
    titles = ["\n".join(textwrap.wrap(literal(arm.title), 52)) for arm in arms]
    lines = sum(title.count("\n") + 1 for title in titles) + len(references)
    legend_in, plot_in = 0.15 + LINE_IN * lines, 4.6 * aspect
    height = plot_in + legend_in + 0.7
    figure = new_figure(WIDTH_IN, height, theme)
    axes = figure.add_axes((0.155, (legend_in + 0.55) / height, 0.825, plot_in / height))
    tidy(axes, theme)
    axes.grid(color=theme.rule, linewidth=0.6)
    handles = [Line2D([], [], **_style(i, theme)) for i in range(len(arms))]
    handles += [
        Line2D([], [], color=theme.muted, linewidth=1, linestyle=REFERENCE_STYLES[k])
        for k in range(len(references))
    ]
    figure.legend(
        handles, [*titles, *references], loc="lower left", bbox_to_anchor=(0.1, 0.0),
        frameon=False, fontsize=10, labelcolor=theme.ink, handlelength=3.4, labelspacing=0.35,
    )  # fmt: skip
    return figure, axes
