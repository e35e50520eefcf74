from __future__ import annotations

import numpy as np
import pytest

from neonet3d.cli.fidelity import show_scores
from neonet3d.generation.evaluate import GeneratorScores
from neonet3d.metrics.interval import Interval
from neonet3d.metrics.manifold import precision_recall
from neonet3d.metrics.spectrum import Spectrum, compare_spectra


def interval(value: float) -> Interval:
    return Interval(value, value - 0.1, value + 0.1, 30, None, "by hand")


def test_every_measure_has_its_row_with_interval_and_n(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    frequency = np.linspace(0.01, 0.25, 25)
    real, synthetic = (Spectrum(frequency, rng.gamma(9, size=(12, 25))) for _ in range(2))
    scores = GeneratorScores(
        fidelity=(),
        two_sample=interval(0.7),
        two_sample_classes=("background", "liver"),
        two_sample_slices=interval(0.4),
        ms_ssim=interval(0.6),
        ms_ssim_of_real=interval(0.5),
        manifold=precision_recall(*rng.normal(size=(2, 12, 3)), 0),
        spectrum=compare_spectra(real, synthetic, 0, n_resamples=50),
        adherence={"liver": interval(0.8)},
        adherence_of_real={"liver": interval(0.9)},
        copying=None,
    )
    show_scores(scores)
    printed = capsys.readouterr().out
    assert "two-sample AUC, slices" in printed
    for value in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        assert f"{value:.3f} [{value - 0.1:.3f}, {value + 0.1:.3f}] n=30" in printed
    assert {"precision", "recall"} <= {line.split()[0] for line in printed.splitlines() if line}
    rows = [line.split()[0] for line in printed.splitlines() if "n=24" in line]
    assert rows[1:] == ["0.010", "0.040", "0.080", "0.110", "0.150", "0.180", "0.220", "0.250"]
    assert scores.as_json()["copying"] is None
