import numpy as np
import pytest

from neonet3d.metrics.spectrum import Spectrum, _shells, compare_spectra, radial_spectrum

SHAPE, SPACING_MM = (48, 48, 24), (2.0, 2.0, 4.0)


def noise(n: int, seed: int, deviation: float = 1.0) -> np.ndarray:
    return deviation * np.random.default_rng(seed).normal(size=(n, *SHAPE)) + 5


def test_white_noise_is_flat_at_variance_times_voxel_volume() -> None:
    spectrum = radial_spectrum(noise(12, 0, 3.0), SPACING_MM)
    assert spectrum.power.shape == (12, len(spectrum.frequency))
    # The first bins hold a few dozen waves and the window joins neighbours: their noise is large.
    np.testing.assert_allclose(spectrum.power.mean(0)[4:], 9 * 16, rtol=0.08)
    assert spectrum.power[:, 4:].mean() == pytest.approx(9 * 16, rel=0.01)


def test_bins_go_to_the_in_plane_nyquist_frequency() -> None:
    frequency = radial_spectrum(noise(1, 0), SPACING_MM).frequency
    np.testing.assert_allclose(np.diff(frequency), 1 / 96)
    assert frequency[0] == pytest.approx(1 / 96)
    assert frequency[-1] == pytest.approx(1 / 4)
    # The coarser in-plane axis decides: 3 mm has 1/6, and 40 x 3 mm the width.
    other = radial_spectrum(np.zeros((1, 40, 40, 16)) + noise(1, 0)[:, :40, :40, :16], (2, 3, 5))
    assert other.frequency[-1] <= 1 / 6
    np.testing.assert_allclose(np.diff(other.frequency), 1 / 80)


def test_a_wave_stands_in_the_bin_of_its_frequency() -> None:
    x = np.arange(48) * 2.0
    for cycles_per_mm in (0.0625, 0.125, 0.1875):
        wave = np.broadcast_to(np.cos(2 * np.pi * cycles_per_mm * x)[:, None, None], SHAPE)
        spectrum = radial_spectrum(wave[None].copy(), SPACING_MM)
        highest = spectrum.frequency[spectrum.power[0].argmax()]
        assert highest == pytest.approx(cycles_per_mm, abs=1 / 96)


def test_a_known_filter_comes_out_in_decibels() -> None:
    real = noise(20, 1)
    smooth = 0.25 * np.roll(real, 1, 1) + 0.5 * real + 0.25 * np.roll(real, -1, 1)
    found = compare_spectra(
        radial_spectrum(real, SPACING_MM), radial_spectrum(smooth, SPACING_MM), 0, n_resamples=200
    )
    # |H(f)|^2 = cos(pi f s)^4 along x, averaged over the waves of each shell.
    shell, _ = _shells(SHAPE, SPACING_MM)
    gain = np.cos(np.pi * np.fft.fftfreq(48, 2.0) * 2.0) ** 4
    gain = np.broadcast_to(gain[:, None, None], SHAPE)
    expected = [10 * np.log10(gain[shell == k].mean()) for k in range(1, shell.max() + 1)]
    values = [d.value for d in found.decibels]
    np.testing.assert_allclose(values[2:], expected[2:], atol=0.25)
    assert found.largest.value == pytest.approx(max(abs(v) for v in values))
    assert found.largest.low > found.largest_of_real.high
    assert found.largest.n == 40


def test_half_the_amplitude_is_six_decibels_less_in_every_bin() -> None:
    real = radial_spectrum(noise(8, 2), SPACING_MM)
    half = Spectrum(real.frequency, real.power / 4)
    found = compare_spectra(real, half, 0, n_resamples=100)
    np.testing.assert_allclose([d.value for d in found.decibels], -10 * np.log10(4))
    assert all(d.low < d.value < d.high for d in found.decibels)
    assert found.largest.value == pytest.approx(10 * np.log10(4))


def test_sets_that_are_alike_differ_as_halves_of_real_do() -> None:
    largest, of_real = [], []
    rng = np.random.default_rng(3)
    for seed in range(30):
        real, synthetic = (
            Spectrum(np.arange(1.0, 9.0), rng.gamma(20, size=(n, 8))) for n in (30, 20)
        )
        found = compare_spectra(real, synthetic, seed, n_resamples=200)
        largest.append(found.largest.value)
        of_real.append(found.largest_of_real.value)
    assert np.mean(largest) == pytest.approx(np.mean(of_real), rel=0.15)


def test_errors_are_sentences() -> None:
    good = radial_spectrum(noise(2, 0), SPACING_MM)
    with pytest.raises(ValueError, match="different frequencies"):
        compare_spectra(good, Spectrum(2 * good.frequency, good.power), 0)
    with pytest.raises(ValueError, match="at least 2 of each"):
        compare_spectra(good, Spectrum(good.frequency, good.power[:1]), 0)
    with pytest.raises(ValueError, match=r"has the shape \(0, 8, 8, 8\)"):
        radial_spectrum(np.zeros((0, 8, 8, 8)), SPACING_MM)
    with pytest.raises(ValueError, match="above 0"):
        radial_spectrum(np.zeros((1, 8, 8, 8)), (1, 0, 1))
    with pytest.raises(ValueError, match="not finite"):
        radial_spectrum(np.full((1, 8, 8, 8), np.nan), SPACING_MM)
