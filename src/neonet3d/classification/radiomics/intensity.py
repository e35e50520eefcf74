"""First-order statistics of the intensities in a region: IBSI manual, section 3.3."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def intensity_features(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Eighteen statistics of the voxels of a region, in units of the image.

    Where all values are equal, skewness and kurtosis are 0 by definition.

    Raises:
        ValueError: no value.
    """
    if values.size == 0:
        raise ValueError("an empty region has no intensities")
    x = values.astype(np.float64)
    mean, variance, median = x.mean(), x.var(), np.median(x)
    # The IBSI's percentile is the smallest value that so large a share does not exceed.
    p10, p25, p75, p90 = np.percentile(x, (10, 25, 75, 90), method="inverted_cdf")
    central = x[(x >= p10) & (x <= p90)]
    deviation = x - mean
    return {
        "mean": mean,
        "variance": variance,
        "skewness": _moment_ratio(deviation, 3),
        "kurtosis": _moment_ratio(deviation, 4) - 3 if variance > 0 else 0.0,
        "median": median,
        "minimum": x.min(),
        "percentile_10": p10,
        "percentile_90": p90,
        "maximum": x.max(),
        "interquartile_range": p75 - p25,
        "range": np.ptp(x),
        "mean_absolute_deviation": np.abs(deviation).mean(),
        "robust_mean_absolute_deviation": np.abs(central - central.mean()).mean(),
        "median_absolute_deviation": np.abs(x - median).mean(),
        "coefficient_of_variation": _ratio(np.sqrt(variance), mean),
        "quartile_coefficient": _ratio(p75 - p25, p75 + p25),
        "energy": np.square(x).sum(),
        "root_mean_square": np.sqrt(np.square(x).mean()),
    }


def _moment_ratio(deviation: Float[np.ndarray, " n"], order: int) -> float:
    variance = np.square(deviation).mean()
    return float((deviation**order).mean() / variance ** (order / 2)) if variance > 0 else 0.0


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below else 0.0
