"""How the measures of a generator are printed for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from neonet3d.cli.options import interval_text, show_table

if TYPE_CHECKING:
    from neonet3d.generation.evaluate import GeneratorScores
    from neonet3d.metrics.fidelity import FidelityScore

SPECTRUM_ROWS = 8


def show_scores(scores: GeneratorScores) -> None:
    """Every measure in tables."""
    show_fidelity(scores.fidelity)
    show_table(("measure", "synthetic", "real against real", "reading"), _rows(scores))
    show_table(("frequency (cycles/mm)", "synthetic over real (dB)"), _spectrum_rows(scores))
    if scores.adherence:
        show_table(
            ("class", "Dice on synthetic", "Dice on real"),
            [
                (name, interval_text(value), interval_text(scores.adherence_of_real[name]))
                for name, value in scores.adherence.items()
            ],
        )


def show_fidelity(scores: Iterable[FidelityScore]) -> None:
    """KID and FID of each plane with intervals and floors."""

    def of(value: float, low: float, high: float, digits: int) -> str:
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    show_table(
        ("plane", "KID [95 %]", "KID floor", "FID [95 %]", "FID floor", "n real/synthetic/matched"),
        [
            (
                s.plane,
                of(s.kid, s.kid_low, s.kid_high, 3),
                f"{s.kid_floor:.3f}",
                of(s.fid, s.fid_low, s.fid_high, 1),
                of(s.fid_floor, s.fid_floor_low, s.fid_floor_high, 1),
                f"{s.n_real}/{s.n_synthetic}/{s.n_matched}",
            )
            for s in scores
        ],
    )


def _rows(scores: GeneratorScores) -> Iterable[tuple[str, str, str, str]]:
    for features, test in (("bands", scores.two_sample), ("slices", scores.two_sample_slices)):
        yield (
            f"two-sample AUC, {features}",
            interval_text(test),
            "not measured",
            "0.5: cannot be told apart",
        )
    yield (
        "MS-SSIM of pairs",
        interval_text(scores.ms_ssim),
        interval_text(scores.ms_ssim_of_real),
        "lower: more diverse",
    )
    if scores.manifold is not None:
        found = scores.manifold
        yield (
            "precision",
            interval_text(found.precision),
            interval_text(found.precision_of_real),
            "draws that lie among real cases",
        )
        yield (
            "recall",
            interval_text(found.recall),
            interval_text(found.recall_of_real),
            "real cases that draws cover",
        )
    yield (
        "spectrum, largest dB",
        interval_text(scores.spectrum.largest, 2),
        interval_text(scores.spectrum.largest_of_real, 2),
        "0: texture as strong",
    )


def _spectrum_rows(scores: GeneratorScores) -> list[tuple[str, str]]:
    """Evenly taken bins, the last among them; JSON has all."""
    found = scores.spectrum
    last = len(found.frequency) - 1
    shown = sorted({round(last * k / (SPECTRUM_ROWS - 1)) for k in range(SPECTRUM_ROWS)})
    return [(f"{found.frequency[k]:.3f}", interval_text(found.decibels[k], 2)) for k in shown]
