"""Grey-level co-occurrence of a region: IBSI manual, section 3.6 (Haralick et al. 1973).

Three-dimensional, the thirteen directions of the nearest neighbours merged into one symmetric
matrix ("3D, merged" of the IBSI).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

DIRECTIONS = tuple(d for d in product((-1, 0, 1), repeat=3) if d > (0, 0, 0))


def discretise(
    image: Float[np.ndarray, "x y z"], region: Bool[np.ndarray, "x y z"], n_bins: int
) -> Int[np.ndarray, "x y z"]:
    """Grey levels 1 ... n_bins of equal width over the region's range; 0 outside.

    Fixed bin number, which the IBSI advises where intensities have no unit of their own.
    """
    levels = np.zeros(image.shape, dtype=np.int64)
    if region.any():
        values = image[region]
        low, span = values.min(), np.ptp(values)
        scaled = n_bins * (values - low) / span if span > 0 else np.zeros_like(values)
        levels[region] = np.minimum(np.floor(scaled).astype(np.int64), n_bins - 1) + 1
    return levels


def co_occurrence(levels: Int[np.ndarray, "x y z"], n_levels: int) -> Float[np.ndarray, "g g"]:
    """Probability of each pair of levels in neighbouring voxels; zeros where there is no pair.

    Args:
        levels: 1 ... ``n_levels`` in the region, 0 outside.
    """
    counts = np.zeros(n_levels * n_levels)
    for direction in DIRECTIONS:
        here = tuple(
            slice(max(0, -d), n - max(0, d)) for d, n in zip(direction, levels.shape, strict=True)
        )
        there = tuple(
            slice(max(0, d), n - max(0, -d)) for d, n in zip(direction, levels.shape, strict=True)
        )
        a, b = levels[here], levels[there]
        both = (a > 0) & (b > 0)
        pairs = (a[both] - 1) * n_levels + (b[both] - 1)
        counts += np.bincount(pairs, minlength=n_levels * n_levels)
    matrix = counts.reshape(n_levels, n_levels)
    matrix = matrix + matrix.T
    total = matrix.sum()
    return matrix / total if total else matrix


def co_occurrence_features(p: Float[np.ndarray, "g g"]) -> dict[str, float]:
    """Twenty-five figures of a symmetric matrix of probabilities.

    One level alone has correlation 1 and no information. Without pairs, as in a region of one
    voxel, nothing is defined, and every figure is nan.
    """
    n = len(p)
    level = np.arange(1, n + 1, dtype=np.float64)
    i, j = level[:, None], level[None, :]
    apart = np.abs(i - j)
    margin = p.sum(1)
    mean = float((level * margin).sum())
    variance = float(((level - mean) ** 2 * margin).sum())
    of_difference = np.bincount(apart.astype(int).ravel(), p.ravel(), minlength=n)
    of_sum = np.bincount((i + j).astype(int).ravel(), p.ravel(), minlength=2 * n + 1)
    difference, total = np.arange(n), np.arange(2 * n + 1)
    difference_mean = float((difference * of_difference).sum())
    sum_mean = float((total * of_sum).sum())
    independent = margin[:, None] * margin[None, :]
    joint_entropy, margin_entropy = _entropy(p), _entropy(margin)
    cross_entropy = -float((p[p > 0] * np.log2(independent[p > 0])).sum())
    more = max(0.0, _entropy(independent) - joint_entropy)
    centred = i + j - 2 * mean
    found = {
        "joint_maximum": float(p.max()),
        "joint_average": mean,
        "joint_variance": variance,
        "joint_entropy": joint_entropy,
        "difference_average": difference_mean,
        "difference_variance": float(((difference - difference_mean) ** 2 * of_difference).sum()),
        "difference_entropy": _entropy(of_difference),
        "sum_average": sum_mean,
        "sum_variance": float(((total - sum_mean) ** 2 * of_sum).sum()),
        "sum_entropy": _entropy(of_sum),
        "angular_second_moment": float((p**2).sum()),
        "contrast": float((apart**2 * p).sum()),
        "dissimilarity": float((apart * p).sum()),
        "inverse_difference": float((p / (1 + apart)).sum()),
        "normalised_inverse_difference": float((p / (1 + apart / n)).sum()),
        "inverse_difference_moment": float((p / (1 + apart**2)).sum()),
        "normalised_inverse_difference_moment": float((p / (1 + (apart / n) ** 2)).sum()),
        "inverse_variance": float((p[apart > 0] / apart[apart > 0] ** 2).sum()),
        "correlation": float(((i - mean) * (j - mean) * p).sum() / variance) if variance else 1.0,
        "autocorrelation": float((i * j * p).sum()),
        "cluster_tendency": float((centred**2 * p).sum()),
        "cluster_shade": float((centred**3 * p).sum()),
        "cluster_prominence": float((centred**4 * p).sum()),
        "information_correlation_1": (
            (joint_entropy - cross_entropy) / margin_entropy if margin_entropy else 0.0
        ),
        "information_correlation_2": float(np.sqrt(1 - np.exp(-2 * more))),
    }
    return found if p.any() else dict.fromkeys(found, np.nan)


def _entropy(p: np.ndarray) -> float:
    """In bits."""
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())
