"""Radially averaged power spectra: is the texture of two sets of volumes equally strong?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from neonet3d.errors import InputError
from neonet3d.metrics.interval import Interval, check_resamples, percentile_ends
from neonet3d.types import Shape, Triple

CONFIDENCE = 0.95
_LEAST_POWER = 1e-12  # of constant volumes, whose decibels would be infinite; mm^3


@dataclass(frozen=True)
class Spectrum:
    """Power of each volume at each spatial frequency.

    Attributes:
        frequency: Middles of the bins in cycles per mm, ``[b]``.
        power: Power spectral density in squared intensity times mm^3, ``[n, b]``.
    """

    frequency: Float[np.ndarray, " b"]
    power: Float[np.ndarray, "n b"]


@dataclass(frozen=True)
class SpectrumDifference:
    """How much stronger synthetic texture is than real texture.

    Attributes:
        frequency: Middles of the bins in cycles per mm.
        decibels: 10 log10 of the mean synthetic over the mean real power in each bin, each with
            its interval; below 0 the synthetic volumes are too smooth there.
        largest: Largest absolute difference over the bins. A maximum of noisy values is never 0:
            read it beside ``largest_of_real``.
        largest_of_real: The same between random halves of the real cases, scaled to the n of
            ``largest``.
    """

    frequency: tuple[float, ...]
    decibels: tuple[Interval, ...]
    largest: Interval
    largest_of_real: Interval


def radial_spectrum(volumes: Float[np.ndarray, "n x y z"], spacing_mm: Triple) -> Spectrum:
    """Power spectral density averaged over directions, per volume.

    Each volume loses its mean and is multiplied by a Hann window along each axis (its borders do
    not meet, and a jump there would look like texture at all frequencies); the density is divided
    by the window's mean square. White noise of variance v gives v times the volume of a voxel in
    mm^3, in every bin.

    Anisotropic voxels: a frequency is a vector in cycles per mm, so bins are shells of
    equal length in mm^-1 whatever the voxel. They are as wide as the coarsest step between
    frequencies of any axis, centred at whole multiples of that, from one up to the Nyquist
    frequency of the in-plane axes x and y (the lower of the two); corners beyond are left out, and
    so is frequency 0. Where z is sampled more coarsely, shells beyond its own Nyquist frequency
    hold only the directions that the grid has.

    Source: Welch, IEEE Trans. Audio Electroacoust. 15 (1967) 70, for window and scaling; shells
    are our choice.

    Args:
        volumes: ``[n, x, y, z]``.
        spacing_mm: Voxel size along x, y, z.

    Raises:
        InputError: No volume, an axis under four voxels, a spacing not above 0, or a voxel that is
            not finite.
    """
    if volumes.ndim != 4 or len(volumes) == 0 or min(volumes.shape[1:]) < 4:
        raise InputError(
            f"volumes has the shape {volumes.shape}. Give [n, x, y, z] with at least one volume "
            "and four voxels along each axis."
        )
    if min(spacing_mm) <= 0:
        raise InputError(f"The spacing is {spacing_mm} mm. Give three lengths above 0.")
    if not np.isfinite(volumes).all():
        raise InputError("A volume holds a voxel that is not finite. Look at its image first.")
    x, y, z = volumes.shape[1:]
    shell, frequency = _shells((x, y, z), spacing_mm)
    window = _hann((x, y, z))
    scale = float(np.prod(spacing_mm)) / float(np.square(window).sum())
    kept = shell > 0
    n_waves = np.bincount(shell[kept], minlength=len(frequency) + 1)[1:]
    power = []
    for volume in volumes:
        centred = volume.astype(np.float64) - volume.mean(dtype=np.float64)
        density = np.square(np.abs(np.fft.fftn(centred * window))) * scale
        sums = np.bincount(shell[kept], weights=density[kept], minlength=len(frequency) + 1)[1:]
        power.append(sums / n_waves)
    return Spectrum(frequency, np.array(power))


def compare_spectra(
    real: Spectrum, synthetic: Spectrum, seed: int, *, n_resamples: int = 2000
) -> SpectrumDifference:
    """Difference of two sets in dB per bin, by bootstrap over cases, with a real-to-real value.

    ``largest_of_real`` splits the real cases into halves A and B and takes the largest difference
    over the bins, divided by the factor sqrt(4 / (1 + real / synthetic)) by which the standard
    error of two halves exceeds that of the whole sets; it is nan under four real cases.

    Args:
        real: Of the real volumes.
        synthetic: Of the synthetic volumes, on the same grid.
        seed: Seed of the resampling.
        n_resamples: Number of bootstrap samples, and of halves.

    Raises:
        InputError: The two were made on different grids, or a side has under two volumes.
    """
    check_resamples(n_resamples)
    n_real, n_synthetic = len(real.power), len(synthetic.power)
    if real.frequency.shape != synthetic.frequency.shape or not np.allclose(
        real.frequency, synthetic.frequency
    ):
        raise InputError(
            "The two spectra have different frequencies. Bring both sets onto one grid first."
        )
    if min(n_real, n_synthetic) < 2:
        raise InputError(
            f"There are {n_real} real and {n_synthetic} synthetic volumes, but an interval needs "
            "at least 2 of each. Add cases."
        )
    rng = np.random.default_rng(seed)

    def resample(power: Float[np.ndarray, "n b"]) -> Float[np.ndarray, "r b"]:
        counts = rng.multinomial(len(power), np.full(len(power), 1 / len(power)), size=n_resamples)
        drawn: Float[np.ndarray, "r b"] = counts @ power / len(power)
        return drawn

    value = _decibels(synthetic.power.mean(axis=0), real.power.mean(axis=0))
    draws = _decibels(resample(synthetic.power), resample(real.power))
    method = f"case bootstrap, {n_resamples} resamples, {CONFIDENCE:.0%}"
    n = n_real + n_synthetic
    return SpectrumDifference(
        frequency=tuple(real.frequency.tolist()),
        decibels=tuple(
            Interval(float(v), *percentile_ends(drawn, CONFIDENCE), n, None, method)
            for v, drawn in zip(value, draws.T, strict=True)
        ),
        largest=Interval(
            float(np.abs(value).max()),
            *percentile_ends(np.abs(draws).max(axis=1), CONFIDENCE),
            n,
            None,
            method,
        ),
        largest_of_real=_largest_of_halves(real.power, n_synthetic, n_resamples, rng),
    )


def _largest_of_halves(
    power: Float[np.ndarray, "n b"], n_synthetic: int, n_splits: int, rng: np.random.Generator
) -> Interval:
    """Largest difference between random halves of the real cases, at the n of the comparison."""
    n = len(power)
    method = f"random halves, {n_splits} splits, {CONFIDENCE:.0%}"
    if n < 4:
        return Interval(float("nan"), float("nan"), float("nan"), n, None, method)
    ranks = rng.permuted(np.tile(np.arange(n), (n_splits, 1)), axis=1)
    first = (ranks < n // 2).astype(float)
    halves = [part @ power / part.sum(axis=1, keepdims=True) for part in (first, 1 - first)]
    excess = np.sqrt(4 / (1 + n / n_synthetic))
    largest = np.abs(_decibels(*halves)).max(axis=1) / excess
    return Interval(float(largest.mean()), *percentile_ends(largest, CONFIDENCE), n, None, method)


def _decibels(
    power: Float[np.ndarray, "*r b"], reference: Float[np.ndarray, "*r b"]
) -> Float[np.ndarray, "*r b"]:
    ratio = np.maximum(power, _LEAST_POWER) / np.maximum(reference, _LEAST_POWER)
    decibels: Float[np.ndarray, "*r b"] = 10 * np.log10(ratio)
    return decibels


def _shells(
    shape: Shape, spacing_mm: Triple
) -> tuple[Int[np.ndarray, "x y z"], Float[np.ndarray, " b"]]:
    """Number of the bin of each frequency (0: left out) and the middles of bins 1, 2, ..."""
    along = [np.fft.fftfreq(n, mm) for n, mm in zip(shape, spacing_mm, strict=True)]
    radius = np.sqrt(sum(np.square(f) for f in np.meshgrid(*along, indexing="ij")))
    width = max(1 / (n * mm) for n, mm in zip(shape, spacing_mm, strict=True))
    nyquist = 1 / (2 * max(spacing_mm[:2]))
    n_bins = int(nyquist / width + 1e-9)
    if n_bins < 1:
        raise InputError(
            f"A grid of {shape} voxels of {spacing_mm} mm has no frequency that all axes resolve. "
            "Take larger patches."
        )
    shell = np.rint(radius / width).astype(int)
    shell[(shell > n_bins) | (radius > nyquist * (1 + 1e-9))] = 0
    return shell, width * np.arange(1, n_bins + 1)


def _hann(shape: Shape) -> Float[np.ndarray, "x y z"]:
    # Half a voxel in from either end, so that no voxel has weight 0.
    x, y, z = (np.square(np.sin(np.pi * (np.arange(n) + 0.5) / n)) for n in shape)
    window: Float[np.ndarray, "x y z"] = x[:, None, None] * y[:, None] * z
    return window
