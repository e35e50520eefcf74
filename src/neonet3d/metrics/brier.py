"""Brier score: the mean squared error of a probability, and what it is made of."""

from dataclasses import dataclass, replace

import numpy as np

from neonet3d.metrics.interval import Interval, bootstrap_mean
from neonet3d.metrics.probability import (
    Binning,
    Probabilities,
    bin_probabilities,
    check_probabilities,
)
from neonet3d.metrics.ranking import Labels


@dataclass(frozen=True)
class BrierParts:
    """Murphy's parts: score = reliability - resolution + uncertainty + within_bins.

    Attributes:
        score: Brier score, lower is better.
        reliability: Mean squared distance of probability and observed share of a bin; 0 is best.
        resolution: Mean squared distance of a bin's observed share and the prevalence; higher is
            better.
        uncertainty: prevalence (1 - prevalence): the score of who always says the prevalence.
        within_bins: What binning leaves over; 0 where every bin holds one probability.
        n: Number of cases.
        n_bins: Number of bins that hold a case.
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float
    n: int
    n_bins: int

    @property
    def skill(self) -> float:
        """1 - score / uncertainty: 0 for saying the prevalence, 1 at best; nan of one class."""
        return 1 - self.score / self.uncertainty if self.uncertainty else float("nan")


def brier_score(
    labels: Labels, probabilities: Probabilities, seed: int, *, confidence: float = 0.95
) -> Interval:
    """Mean of (probability - label)^2, with a percentile bootstrap interval over cases.

    It depends on the prevalence: compare scores on the same cases only, or read
    ``BrierParts.skill``. Where every error is alike the interval has no length.

    Source: Brier, Mon. Weather Rev. 78 (1950) 1, for two classes and without their factor 2.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        probabilities: Of being positive, ``[n]``.
        seed: Seed of the interval.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: As ``check_probabilities``.
    """
    truth, forecast = check_probabilities(labels, probabilities)
    found = bootstrap_mean((forecast - truth) ** 2, seed, confidence=confidence)
    return replace(found, n_positive=int(truth.sum()))


def decompose_brier(
    labels: Labels,
    probabilities: Probabilities,
    n_bins: int | None = 10,
    binning: Binning = "equal-mass",
) -> BrierParts:
    """Murphy's decomposition of the Brier score.

    With ``n_bins=None`` the groups are the distinct probabilities and the decomposition is exact;
    that is for a model that says a few values. Where every probability is another, each case is a
    group, and reliability and resolution say nothing. So they are binned, with the mean
    probability of a bin for the bin; then the parts no longer add up, and ``within_bins`` is what
    is missing: the variance of probability within bins less twice its covariance with the label.

    Reliability and resolution of a finite sample are both too large, by the same amount, since the
    observed share of a small bin is noisy: a calibrated model has reliability above 0.

    Sources: Murphy, J. Appl. Meteorol. 12 (1973) 595; Stephenson, Coelho & Jolliffe, Weather
    Forecast. 23 (2008) 752, for the terms within bins.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``.
        probabilities: Of being positive, ``[n]``.
        n_bins: Number of bins; None for one for each distinct probability.
        binning: See ``bin_probabilities``.

    Raises:
        InputError: As ``check_probabilities``, or ``n_bins`` is below 1.
    """
    truth, forecast = check_probabilities(labels, probabilities)
    if n_bins is None:
        _, bins = np.unique(forecast, return_inverse=True)
    else:
        bins = bin_probabilities(forecast, n_bins, binning)
    count = np.bincount(bins)
    mean = np.bincount(bins, weights=forecast) / count
    share = np.bincount(bins, weights=truth) / count
    prevalence = truth.mean()
    spread = forecast - mean[bins]
    return BrierParts(
        score=float(((forecast - truth) ** 2).mean()),
        reliability=float((count * (mean - share) ** 2).sum() / truth.size),
        resolution=float((count * (share - prevalence) ** 2).sum() / truth.size),
        uncertainty=float(prevalence * (1 - prevalence)),
        within_bins=float((spread**2 - 2 * spread * (truth - share[bins])).mean()),
        n=truth.size,
        n_bins=count.size,
    )
