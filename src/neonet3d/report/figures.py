"""Charts as PNG bytes. Drawn on matplotlib's objects, so nothing global is touched."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import roc_curve

from neonet3d.metrics.interval import Interval
from neonet3d.report.palette import Theme
from neonet3d.report.wording import interval_text, spoken
from neonet3d.study.results import StudyResults

DPI = 150
LINE_STYLES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
MARKERS = ("o", "s", "D")
MOST_ARMS = len(LINE_STYLES)  # that curves of one figure can be told apart


def new_figure(width_in: float, height_in: float, theme: Theme) -> Figure:
    """An empty figure on the page's paper."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The same figure gives the same bytes: no date and no version are written."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="auto", metadata={"Software": None})
    return stream.getvalue()


def literal(text: str) -> str:
    """Text that matplotlib shows as it stands, where ``$`` would begin a formula."""
    return text.replace("$", r"\$")


def roc(results: StudyResults, theme: Theme) -> bytes:
    """ROC curves over the pooled held-out cases, of the first arms where there are many."""
    arms = results.arms[:MOST_ARMS]
    entries = len(arms) + (results.ceiling_auc is not None)
    legend_in = 0.15 + 0.43 * entries
    height = 5.25 + legend_in
    figure = new_figure(5.4, height, theme)
    axes = figure.add_axes((0.125, (legend_in + 0.55) / height, 0.855, 4.6 / height))
    tidy(axes, theme)
    axes.grid(color=theme.rule, linewidth=0.6)
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=(0, (2, 3)))
    axes.annotate(
        "chance", (0.5, 0.5), (4, -12), textcoords="offset points",
        color=theme.muted, fontsize=9.5, rotation=45, rotation_mode="anchor",
    )  # fmt: skip
    handles, labels = [], []
    for i, arm in enumerate(arms):
        false_positive, true_positive, _ = roc_curve(results.outcomes, arm.probabilities)
        (curve,) = axes.plot(
            false_positive,
            true_positive,
            color=theme.series[i % len(theme.series)],
            linestyle=LINE_STYLES[i % len(LINE_STYLES)],
            linewidth=2,
            solid_joinstyle="miter",
        )
        handles.append(curve)
        labels.append(f"{_wrapped(arm.title)}\nAUC {interval_text(arm.auc)}")
    if results.ceiling_auc is not None:
        handles.append(Line2D([], [], linestyle="none"))
        labels.append(
            f"Ceiling: the phantom's true probabilities\nAUC {interval_text(results.ceiling_auc)}"
        )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.set_xlabel("False-positive rate (1 − specificity)")
    axes.set_ylabel("True-positive rate (sensitivity)")
    figure.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0.1, 0.0), frameon=False,
        fontsize=10, labelcolor=theme.ink, handlelength=3.4, labelspacing=0.55,
    )  # fmt: skip
    return to_png(figure)


def dice(results: StudyResults, theme: Theme) -> bytes:
    """Dice of each class with its interval: patches real and synthetic, and whole scans."""
    series = (
        ("Synthetic patches", results.adherence),
        ("Real patches", results.adherence_of_real),
        ("Real scans", results.segmentation),
    )
    classes = [name for name in results.classes if any(name in scores for _, scores in series)]
    height = 1.4 + 0.72 * max(len(classes), 1)
    figure = new_figure(5.4, height, theme)
    axes = figure.add_axes((0.24, 1.3 / height, 0.73, (height - 1.35) / height))
    tidy(axes, theme)
    axes.grid(axis="x", color=theme.rule, linewidth=0.6)
    for row in range(1, len(classes)):
        axes.axhline(row - 0.5, color=theme.rule, linewidth=0.6)
    for i, (_, scores) in enumerate(series):
        _draw_intervals(axes, classes, scores, 0.24 * (i - 1), theme.series[i], MARKERS[i])
    axes.set(xlim=(0, 1), ylim=(max(len(classes), 1) - 0.5, -0.5))
    axes.set_xlabel("Dice")
    axes.set_yticks(range(len(classes)), [literal(spoken(name)) for name in classes])
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink, labelsize=10.5)
    figure.legend(
        [
            Line2D([], [], color=theme.series[i], marker=MARKERS[i], linewidth=2, markersize=6)
            for i in range(len(series))
        ],
        [title for title, _ in series],
        loc="lower left", bbox_to_anchor=(0.02, 0.0), frameon=False, fontsize=10,
        labelcolor=theme.ink, labelspacing=0.35,
    )  # fmt: skip
    return to_png(figure)


def _draw_intervals(
    axes: Axes,
    classes: Sequence[str],
    scores: Mapping[str, Interval],
    offset: float,
    colour: str,
    marker: str,
) -> None:
    for row, name in enumerate(classes):
        if name not in scores:
            continue
        at = row + offset
        if np.isfinite([scores[name].low, scores[name].high]).all():
            axes.plot([scores[name].low, scores[name].high], [at, at], color=colour, linewidth=2)
        axes.plot(scores[name].value, at, marker, color=colour, markersize=6, clip_on=False)


def tidy(axes: Axes, theme: Theme) -> None:
    """Axes in the theme's colours, without the box."""
    axes.set_facecolor(theme.paper)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=10, width=0.8)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.ink, size=10.5)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=theme.muted, linewidth=0.8)


def _wrapped(text: str) -> str:
    return literal("\n".join(textwrap.wrap(text, 52)))
