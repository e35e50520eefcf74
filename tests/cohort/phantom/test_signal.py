"""Closed forms of the gradient echo and of Rician noise."""

import numpy as np
import pytest

from neonet3d.cohort.phantom import signal


def spgr(t1_ms: float, tr_ms: float, flip_deg: float) -> float:
    return float(signal.spgr_signal(np.array([1 / t1_ms]), tr_ms, flip_deg)[0])


def test_spgr_closed_form():
    e1, angle = np.exp(-3.3 / 300), np.deg2rad(10)
    expected = np.sin(angle) * (1 - e1) / (1 - np.cos(angle) * e1)
    assert spgr(300, 3.3, 10) == pytest.approx(expected, rel=1e-12)


def test_spgr_at_ninety_degrees_is_saturation_recovery():
    assert spgr(500, 100, 90) == pytest.approx(1 - np.exp(-100 / 500))


def test_signal_peaks_at_the_ernst_angle():
    best = signal.ernst_angle_deg(300, 3.6)
    angles = np.linspace(1, 40, 4000)
    measured = angles[np.argmax([spgr(300, 3.6, angle) for angle in angles])]
    assert measured == pytest.approx(best, abs=0.02)


def test_published_order_of_intensities():
    """Field notes, section 6: liver > cloud > blood > rim at TR 3.3 ms, 10 degrees."""
    liver, cloud, blood, rim = (spgr(t1, 3.3, 10) for t1 in (280, 520, 570, 900))
    assert liver > cloud > blood > rim
    assert (liver, cloud, rim) == pytest.approx((0.075, 0.050, 0.032), abs=0.004)


def test_mixing_is_linear_in_rate():
    r1 = np.array([1 / 300, 1 / 300, 1 / 300], dtype=np.float32)
    signal.mix_r1(r1, 1 / 900, np.array([0, 0.5, 1], dtype=np.float32))
    np.testing.assert_allclose(r1, [1 / 300, (1 / 300 + 1 / 900) / 2, 1 / 900], rtol=1e-5)


def test_rician_mean_without_signal():
    noisy = signal.add_rician_noise(
        np.zeros((64, 64, 64), np.float32), 3.0, np.random.default_rng(0)
    )
    assert noisy.dtype == np.float32
    assert noisy.mean() == pytest.approx(3.0 * np.sqrt(np.pi / 2), rel=0.005)


def test_rician_second_moment_with_signal():
    noisy = signal.add_rician_noise(
        np.full((64, 64, 64), 5.0, np.float32), 1.0, np.random.default_rng(1)
    )
    assert np.mean(noisy.astype(np.float64) ** 2) == pytest.approx(5**2 + 2, rel=0.005)


def test_a_scanner_without_bias_is_uniform():
    scanner = signal.Scanner(3.6, 1.5, 10, 30, 0.0, (0.0, 0.0, 0.0), 1.0)
    axis = np.linspace(-50, 50, 4, dtype=np.float32)
    field = np.random.default_rng(2).standard_normal((4, 4, 4), dtype=np.float32)
    sensitivity = signal.coil_sensitivity(
        scanner, field, axis[:, None, None], axis[None, :, None], axis[None, None, :]
    )
    np.testing.assert_array_equal(sensitivity, 1)


def test_every_tissue_has_a_signal_and_air_has_none():
    rng = np.random.default_rng(3)
    signals = signal.tissue_signals(signal.draw_contrast(rng), signal.draw_scanner(rng))
    assert signals.shape == (len(signal.Tissue),)
    assert signals[signal.Tissue.AIR] == 0
    assert np.all(np.delete(signals, signal.Tissue.AIR) > 0)


def test_drawn_values_stay_in_the_range_of_the_sources():
    for seed in range(50):
        rng = np.random.default_rng(seed)
        contrast, scanner = signal.draw_contrast(rng), signal.draw_scanner(rng)
        assert 215 <= contrast.liver_ms <= 470 < contrast.rim_ms
        assert 3.2 <= scanner.repetition_time_ms <= 4.2
        assert scanner.flip_angle_deg in (10, 12, 15)
