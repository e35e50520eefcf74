"""Do probabilities mean what they say? Reliability table, calibration error, slope and intercept.

What mends a model that is not calibrated is in ``recalibration``.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from neonet3d.metrics.interval import Interval, check_resamples, normal_quantile, wilson
from neonet3d.metrics.probability import (
    Binning,
    Probabilities,
    bin_probabilities,
    check_probabilities,
)
from neonet3d.metrics.ranking import Labels, Scores, split_by_class
from neonet3d.metrics.recalibration import fit_intercept, fit_logistic


@dataclass(frozen=True)
class ReliabilityBin:
    """One point of a reliability plot.

    Attributes:
        low: Smallest probability in the bin.
        high: Largest probability in the bin.
        mean_probability: What the model says of these cases on average.
        observed: Share of them that is positive, with its Wilson interval.
    """

    low: float
    high: float
    mean_probability: float
    observed: Interval


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error beside what a calibrated model would show.

    Attributes:
        value: The error, 0 to 1.
        floor: Its mean if every probability were true, at this n and in these bins.
        floor_high: 95th percentile of the same.
        p_value: Of calibration, one-sided: how often a calibrated model shows this error or more.
        n: Number of cases.
        n_bins: Number of bins that hold a case.
    """

    value: float
    floor: float
    floor_high: float
    p_value: float
    n: int
    n_bins: int


@dataclass(frozen=True)
class CalibrationSlope:
    """Logistic regression of the outcome on the logit of the prediction.

    Attributes:
        slope: 1 is best; below 1 the predictions are too extreme (overfitting), above 1 too mild.
        intercept: With the slope held at 1: 0 is best; below 0 the risk is overestimated on
            average, as after training at a higher prevalence.
    """

    slope: Interval
    intercept: Interval


def reliability_table(
    labels: Labels,
    probabilities: Probabilities,
    n_bins: int = 10,
    binning: Binning = "equal-mass",
    *,
    confidence: float = 0.95,
) -> tuple[ReliabilityBin, ...]:
    """Mean probability and observed share of each bin that holds a case, in rising order.

    The Wilson intervals are of each bin alone: with ten bins of a calibrated model, four plots in
    ten have a bin that misses the diagonal.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        probabilities: Of being positive, ``[n]``.
        n_bins: Number of bins.
        binning: See ``bin_probabilities``.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: As ``check_probabilities``, or a setting is out of range.
    """
    truth, forecast = check_probabilities(labels, probabilities)
    bins = bin_probabilities(forecast, n_bins, binning)
    rows = []
    for k in range(int(bins.max()) + 1):
        inside, positive = forecast[bins == k], int(truth[bins == k].sum())
        observed = wilson(positive, inside.size, confidence=confidence)
        rows.append(
            ReliabilityBin(float(inside.min()), float(inside.max()), float(inside.mean()), observed)
        )
    return tuple(rows)


def expected_calibration_error(
    labels: Labels,
    probabilities: Probabilities,
    seed: int,
    n_bins: int = 10,
    binning: Binning = "equal-mass",
    *,
    n_simulations: int = 1000,
) -> CalibrationError:
    """Mean distance of probability and observed share over bins, weighted by their cases.

    The figure is biased upwards: a bin's observed share is noisy, and noise only adds distance, so
    a perfectly calibrated model does not reach 0 (with 128 cases in 10 bins it shows about 0.1).
    It depends on the bins too, and with few wide ones faults within a bin cancel. So it never
    stands alone: labels are drawn from the probabilities themselves, and the same figure of those
    draws is the floor.

    Sources: Naeini, Cooper & Hauskrecht, AAAI 2015; equal mass after Roelofs et al., AISTATS 2022,
    who find it the less biased; Bröcker & Smith, Weather Forecast. 22 (2007) 651, for the draws.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        probabilities: Of being positive, ``[n]``.
        seed: Seed of the draws.
        n_bins: Number of bins.
        binning: See ``bin_probabilities``.
        n_simulations: Number of draws.

    Raises:
        InputError: As ``check_probabilities``, or a setting is out of range.
    """
    check_resamples(n_simulations)
    truth, forecast = check_probabilities(labels, probabilities)
    bins = bin_probabilities(forecast, n_bins, binning)
    value = float(_binned_error(truth[None], forecast, bins)[0])
    rng = np.random.default_rng(seed)
    drawn = rng.random((n_simulations, truth.size)) < forecast
    floor = _binned_error(drawn.astype(np.float64), forecast, bins)
    return CalibrationError(
        value=value,
        floor=float(floor.mean()),
        floor_high=float(np.quantile(floor, 0.95)),
        p_value=float((1 + np.count_nonzero(floor >= value - 1e-12)) / (1 + n_simulations)),
        n=truth.size,
        n_bins=int(bins.max()) + 1,
    )


def calibration_slope(
    labels: Labels, logits: Scores, *, confidence: float = 0.95
) -> CalibrationSlope:
    """Slope and intercept of the calibration line, with Wald intervals.

    Of cases that the model was not fitted on: on its own training cases a logistic regression has
    slope 1 and intercept 0 whatever it is worth.

    Sources: Cox, Biometrika 45 (1958) 562; Van Calster et al., J. Clin. Epidemiol. 74 (2016) 167.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        logits: log(p / (1 - p)) of the predicted probability, ``[n]``.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: As ``fit_logistic``.
    """
    z = normal_quantile(confidence)
    positive, _ = split_by_class(labels, logits, at_least=1)
    values = np.asarray(logits, dtype=np.float64)
    method = f"logistic regression, Wald, {confidence:.0%}"

    def interval(value: float, error: float) -> Interval:
        low, high = value - z * error, value + z * error
        return Interval(value, float(low), float(high), labels.size, positive.size, method)

    line = fit_logistic(labels, values)
    weight = _spread(line.apply(values))
    centre = (weight * values).sum() / weight.sum()
    slope_error = 1 / np.sqrt((weight * (values - centre) ** 2).sum())
    intercept = fit_intercept(labels, values)
    intercept_error = 1 / np.sqrt(_spread(expit(values + intercept)).sum())
    return CalibrationSlope(
        slope=interval(line.slope, slope_error), intercept=interval(intercept, intercept_error)
    )


def _spread(probabilities: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Binomial variance of each case."""
    return probabilities * (1 - probabilities)


def _binned_error(
    truth: Float[np.ndarray, "b n"],
    forecast: Float[np.ndarray, " n"],
    bins: Int[np.ndarray, " n"],
) -> Float[np.ndarray, " b"]:
    """Expected calibration error for each row of labels: sum over bins of |sum(p - y)| / n."""
    member = bins[:, None] == np.arange(bins.max() + 1)
    error: Float[np.ndarray, " b"] = np.abs((forecast - truth) @ member).sum(axis=1) / bins.size
    return error
