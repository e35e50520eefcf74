"""From tissue to MR signal: relaxation, spoiled gradient echo, coil bias, Rician noise.

Hepatobiliary phase, 20 min after gadoxetate (Gd-EOB-DTPA) at 3 T: hepatocytes have taken up the
agent and shine, whatever has no hepatocytes (tumour, vessels, ducts) is dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from neonet3d.cohort.phantom.grid import FloatArray


class Tissue(IntEnum):
    """What fills a sample outside the liver."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    MARROW = 3
    LUNG = 4
    SPLEEN = 5
    STOMACH = 6
    KIDNEY = 7
    BLOOD = 8
    MYOCARDIUM = 9
    BOWEL = 10
    PANCREAS = 11
    FLUID = 12
    BILE = 13


# T1 in ms 20 min after the agent. Muscle, spleen, stomach, kidney: recipe. Fat 382 ms at 3 T [S].
# The others are ours, between the pre-contrast values at 3 T and full enhancement; bile that holds
# agent outshines the liver (signal .097 against .075 [C], hence 200 ms).
_T1_MS = {
    Tissue.AIR: 1000.0, Tissue.FAT: 382.0, Tissue.MUSCLE: 720.0, Tissue.MARROW: 550.0,
    Tissue.LUNG: 1000.0, Tissue.SPLEEN: 620.0, Tissue.STOMACH: 1800.0, Tissue.KIDNEY: 330.0,
    Tissue.MYOCARDIUM: 700.0, Tissue.BOWEL: 760.0, Tissue.PANCREAS: 640.0, Tissue.FLUID: 2400.0,
    Tissue.BILE: 200.0,
}  # fmt: skip
# Share of the protons that give signal: fat is suppressed (x .3), marrow is half fat (x .45), lung
# is mostly air (x .18), all recipe; air has none.
_DENSITY = {Tissue.AIR: 0.0, Tissue.FAT: 0.30, Tissue.MARROW: 0.45, Tissue.LUNG: 0.18}

# T2* in ms at 3 T (ours, typical): the liver's is shortened by iron and agent.
T2STAR_LIVER_MS = 20.0
T2STAR_OTHER_MS = 30.0

T1_UNENHANCED_LIVER_MS = 820.0  # liver without uptake: 809 ms before contrast [S], recipe 820
T1_OBSTRUCTED_BILE_MS = 2200.0  # stagnant bile without agent (recipe)
_LIVER_T1_RANGE_MS = (215.0, 470.0)  # healthy 240-270 [C] to Child A/B 335-557 [S] (recipe)


@dataclass(frozen=True)
class Contrast:
    """T1 values of one patient in ms, and how mottled the liver is.

    Args:
        liver_ms: Liver with uptake.
        blood_ms: Blood in all vessels.
        rim_ms: Tumour rim, dense cells without uptake.
        cloud_ms: Fibrous tumour centre, which pools the agent.
        cloud_weight: Share of the cloud in the tumour's centre, 0-1; 0 is a uniformly dark tumour.
        texture: Standard deviation of the liver's R1, relative.
        tumour_texture: The same in the tumour.
    """

    liver_ms: float
    blood_ms: float
    rim_ms: float
    cloud_ms: float
    cloud_weight: float
    texture: float
    tumour_texture: float = 0.10


@dataclass(frozen=True)
class Scanner:
    """A spoiled gradient echo sequence and its receive chain.

    Args:
        repetition_time_ms: TR.
        echo_time_ms: TE.
        flip_angle_deg: Flip angle in degrees.
        snr: Liver signal over noise sigma.
        bias_amplitude: Standard deviation of the logarithm of the coil's sensitivity.
        bias_slope_per_mm: Linear part of the sensitivity along x, y, z in 1/mm.
        gain: Scanner units per unit of transverse magnetisation; arbitrary, as on real scanners.
    """

    repetition_time_ms: float
    echo_time_ms: float
    flip_angle_deg: float
    snr: float
    bias_amplitude: float
    bias_slope_per_mm: tuple[float, float, float]
    gain: float


def draw_contrast(rng: np.random.Generator) -> Contrast:
    """Draw one patient's relaxation times (recipe, "Signal")."""
    weight = rng.choice([0.0, 0.55, 1.0], p=[0.2, 0.3, 0.5]) * rng.uniform(0.7, 1)
    return Contrast(
        liver_ms=float(np.clip(rng.normal(300, 55), *_LIVER_T1_RANGE_MS)),
        blood_ms=float(np.clip(rng.normal(570, 45), 440, 700)),
        rim_ms=float(np.clip(rng.normal(900, 80), 660, 1140)),
        cloud_ms=float(np.clip(rng.normal(520, 60), 400, 700)),
        cloud_weight=float(weight),
        texture=float(rng.uniform(0.015, 0.04)),
    )


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draw one examination's sequence (TR, flip angle, bias, noise: recipe; TE 1.2-2 ms [S])."""
    slope = rng.normal(0, 0.0006, 3).clip(-0.0012, 0.0012)
    return Scanner(
        repetition_time_ms=float(rng.uniform(3.2, 4.2)),
        echo_time_ms=float(rng.uniform(1.2, 2.0)),
        flip_angle_deg=float(rng.choice([10.0, 12.0, 15.0])),
        snr=float(rng.uniform(24, 40)),
        bias_amplitude=float(rng.uniform(0.12, 0.28)),
        bias_slope_per_mm=(float(slope[0]), float(slope[1]), float(slope[2])),
        gain=float(4000 * np.exp(rng.normal(0, 0.25))),
    )


def mix_r1(r1_per_ms: FloatArray, other_per_ms: FloatArray | float, fraction: FloatArray) -> None:
    """Replace a share of a sample's tissue, in place: R1 = (1 - f) R1 + f R1_other.

    Rates add in fast exchange, times do not; so a sample that is half tumour has the mean R1.

    Args:
        r1_per_ms: 1/T1 in 1/ms, changed in place.
        other_per_ms: 1/T1 of what moves in, 1/ms.
        fraction: Its share, 0-1.
    """
    r1_per_ms += fraction * (np.float32(other_per_ms) - r1_per_ms)


def spgr_signal(
    r1_per_ms: FloatArray, repetition_time_ms: float, flip_angle_deg: float
) -> FloatArray:
    """Steady state of a spoiled gradient echo, per unit of equilibrium magnetisation.

    S = sin α (1 - E1) / (1 - E1 cos α), E1 = exp(-TR R1) (Haase et al. 1986; Ernst and Anderson
    1966). TE enters through `echo_decay`.

    Args:
        r1_per_ms: 1/T1 in 1/ms, any shape.
        repetition_time_ms: TR in ms.
        flip_angle_deg: α in degrees.

    Returns:
        The signal, shape and dtype of `r1_per_ms`, 0-1.
    """
    angle = np.deg2rad(flip_angle_deg)
    e1 = r1_per_ms * r1_per_ms.dtype.type(-repetition_time_ms)
    np.exp(e1, out=e1)
    signal = 1 - e1
    e1 *= e1.dtype.type(-np.cos(angle))
    e1 += 1
    signal /= e1
    signal *= signal.dtype.type(np.sin(angle))
    return signal


def ernst_angle_deg(t1_ms: float, repetition_time_ms: float) -> float:
    """The flip angle of greatest signal, arccos(exp(-TR / T1)), in degrees."""
    return float(np.rad2deg(np.arccos(np.exp(-repetition_time_ms / t1_ms))))


def echo_decay(echo_time_ms: float, t2star_ms: float) -> float:
    """What T2* leaves of the signal at the echo, exp(-TE / T2*)."""
    return float(np.exp(-echo_time_ms / t2star_ms))


def tissue_signals(contrast: Contrast, scanner: Scanner) -> FloatArray:
    """Signal of every `Tissue`, `(14,)` float32, before bias and gain."""
    t1_ms = {**_T1_MS, Tissue.BLOOD: contrast.blood_ms}
    r1 = np.array([1 / t1_ms[tissue] for tissue in Tissue], dtype=np.float32)
    density = np.array([_DENSITY.get(tissue, 1.0) for tissue in Tissue], dtype=np.float32)
    decay = np.float32(echo_decay(scanner.echo_time_ms, T2STAR_OTHER_MS))
    return density * decay * spgr_signal(r1, scanner.repetition_time_ms, scanner.flip_angle_deg)


def coil_sensitivity(
    scanner: Scanner, field: FloatArray, x: FloatArray, y: FloatArray, z: FloatArray
) -> FloatArray:
    """Receive sensitivity, exp(amplitude x field) + slope · position, about 1 in the middle.

    Args:
        scanner: Amplitude and slope.
        field: A smooth unit-variance field, `(nx, ny, nz)`.
        x: Positions in mm that broadcast to `(nx, ny, nz)`.
        y: See `x`.
        z: See `x`.
    """
    sx, sy, sz = (np.float32(slope) for slope in scanner.bias_slope_per_mm)
    bias: FloatArray = np.exp(np.float32(scanner.bias_amplitude) * field)
    bias += sx * x + sy * y + sz * z
    # Even in a corner of the box some signal is received.
    return np.maximum(bias, np.float32(0.2))


def add_rician_noise(signal: FloatArray, sigma: float, rng: np.random.Generator) -> FloatArray:
    """Magnitude of a complex signal with Gaussian noise, |S + n1 + i n2| (Gudbjartsson 1995).

    Args:
        signal: Noise-free magnitude, any shape.
        sigma: Standard deviation of each channel, unit of `signal`.
        rng: Source of the noise.
    """
    real = rng.standard_normal(signal.shape, dtype=np.float32) * np.float32(sigma) + signal
    imaginary = rng.standard_normal(signal.shape, dtype=np.float32) * np.float32(sigma)
    return np.asarray(np.hypot(real, imaginary), dtype=np.float32)
