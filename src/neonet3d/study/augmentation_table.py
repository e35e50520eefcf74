"""From the scores of hundreds of trainings to one table, its gains, and what they are worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from neonet3d.metrics.clustered import bootstrap_patients
from neonet3d.study.augmentation_arms import Arm, Scores
from neonet3d.study.augmentation_results import AugmentationCell, Worth

REFERENCE = "real"

Key = tuple[str, str, int]
"""Network, arm, number of real cases."""


def tabulate(
    scores: Mapping[Key, Sequence[Scores]],
    holds: Mapping[int, Mapping[str, np.ndarray]],
    *,
    seed: int,
) -> tuple[AugmentationCell, ...]:
    """One row for each network, arm, number and class; Dice is averaged over seeds, by case.

    Distances are not, or one seed that misses a class would make the case's infinite: their median
    is over the cases of all seeds.

    Dice, distance and gain are of the cases that hold the class, so that all arms stand on the same
    ones; how often it is found where it is not is told apart. A gain is paired: the same network,
    number and cases, seeds averaged on both sides. Its interval resamples patients, so it says
    nothing of other training cases.

    Args:
        holds: which held-out cases hold a class, at each number of real cases.
    """
    cells = []
    for (network, arm, n), runs in scores.items():
        reference = scores[network, REFERENCE, n]
        for label in runs[0].dice:
            there = holds[n][label]
            patients = tuple(np.array(runs[0].patients)[there])
            values = np.mean([run.dice[label][there] for run in runs], axis=0)
            gain = values - np.mean([run.dice[label][there] for run in reference], axis=0)
            distance = np.concatenate([run.hd95_mm[label][there] for run in runs])
            cells.append(
                AugmentationCell(
                    network=network,
                    arm=arm,
                    real_cases=n,
                    label=label,
                    dice=bootstrap_patients(values, patients, seed, "mean"),
                    hd95_mm=bootstrap_patients(distance, patients * len(runs), seed, "median"),
                    gain=bootstrap_patients(gain, patients, seed, "mean"),
                    n_without=int((~there).sum()),
                    invented=_invented([run.dice[label][~there] for run in runs]),
                )
            )
    return tuple(cells)


def _invented(runs: Sequence[Float[np.ndarray, " n"]]) -> float | None:
    """Share of the cases without a class in which it is found: there Dice is 0, and else nan."""
    stacked = np.stack(runs)
    return float((~np.isnan(stacked)).mean()) if stacked.size else None


def worth_of(cells: Sequence[AugmentationCell], arms: Sequence[Arm]) -> tuple[Worth, ...]:
    """What each arm's Dice is worth in real cases, at each number."""
    numbers = sorted({cell.real_cases for cell in cells})
    means = {(arm.key, n): _mean_dice(cells, arm.key, n) for arm in arms for n in numbers}
    curve = np.array([means[REFERENCE, n] for n in numbers])
    return tuple(
        Worth(
            arm=arm.key,
            real_cases=n,
            dice=means[arm.key, n],
            real_dice=means[REFERENCE, n],
            equal_to=equal_cases(np.array(numbers), curve, means[arm.key, n]),
        )
        for arm in arms
        if arm.key != REFERENCE
        for n in numbers
    )


def _mean_dice(cells: Sequence[AugmentationCell], arm: str, n: int) -> float:
    """Over the classes that a held-out case holds."""
    of_arm = [c.dice.value for c in cells if (c.arm, c.real_cases) == (arm, n)]
    return float(np.nanmean(of_arm)) if not np.isnan(of_arm).all() else math.nan


def equal_cases(
    numbers: Float[np.ndarray, " n"], curve: Float[np.ndarray, " n"], value: float
) -> float | None:
    """Where a curve of Dice against cases first reaches a value; linear in log2 of the cases.

    Returns:
        None where the value lies below the first point or is never reached.
    """
    if value < curve[0]:
        return None
    for i in range(len(curve) - 1):
        low, high = curve[i], curve[i + 1]
        if low <= value <= high:
            share = 0.0 if high == low else (value - low) / (high - low)
            exponent = np.log2(numbers[i]) + share * np.log2(numbers[i + 1] / numbers[i])
            return float(2**exponent)
    return float(numbers[-1]) if value == curve[-1] else None
