"""Decision curve: is acting on the model better than treating all, or none?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neonet3d.errors import InputError
from neonet3d.metrics.interval import check_confidence, check_resamples
from neonet3d.metrics.probability import Probabilities, check_probabilities
from neonet3d.metrics.ranking import Labels


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at each threshold probability; that of treating none is 0 everywhere.

    Attributes:
        threshold: Probability from which one would treat, ``[t]``.
        model: Net benefit of treating whom the model says, ``[t]``.
        model_low, model_high: Percentile bootstrap interval over cases, point by point, ``[t]``.
        treat_all: Net benefit of treating everyone, ``[t]``.
        gain: Of the model over the better of treating all and none, ``[t]``.
        gain_low, gain_high: Its interval, with the default that is better in the sample, ``[t]``.
        n: Number of cases.
        n_positive: How many of them are positive.
    """

    threshold: Float[np.ndarray, " t"]
    model: Float[np.ndarray, " t"]
    model_low: Float[np.ndarray, " t"]
    model_high: Float[np.ndarray, " t"]
    treat_all: Float[np.ndarray, " t"]
    gain: Float[np.ndarray, " t"]
    gain_low: Float[np.ndarray, " t"]
    gain_high: Float[np.ndarray, " t"]
    n: int
    n_positive: int


def decision_curve(
    labels: Labels,
    probabilities: Probabilities,
    thresholds: Float[np.ndarray, " t"],
    seed: int,
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> DecisionCurve:
    """Net benefit = true positives / n - false positives / n x threshold / (1 - threshold).

    The unit is one patient rightly treated of each patient seen; the threshold says how many false
    alarms one would take for one: 1 to 9 at 0.1. A model is of use at the thresholds that
    clinicians would choose (settle them beforehand), not where the curve is highest. It needs
    probabilities that are calibrated at the prevalence of these cases.

    Source: Vickers & Elkin, Med. Decis. Making 26 (2006) 565. Treated means probability >=
    threshold.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        probabilities: Of being positive, of cases the model was not trained on, ``[n]``.
        thresholds: Strictly between 0 and 1, ``[t]``.
        seed: Seed of the intervals.
        n_resamples: Number of bootstrap samples.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: As ``check_probabilities``, or a threshold or setting is out of range.
    """
    check_resamples(n_resamples)
    check_confidence(confidence)
    truth, forecast = check_probabilities(labels, probabilities)
    limits = np.asarray(thresholds, dtype=np.float64)
    if limits.ndim != 1 or not limits.size or not ((limits > 0) & (limits < 1)).all():
        raise InputError(
            "Thresholds of a decision curve are a list of probabilities strictly between 0 and 1, "
            f"but got {thresholds}. Give for instance 0.05 to 0.6."
        )
    # What treating a case is worth; a net benefit is the mean of it over cases.
    worth = np.where(truth[:, None] == 1, 1.0, -limits / (1 - limits))
    of_model = worth * (forecast[:, None] >= limits)
    treat_all = worth.mean(axis=0)
    of_gain = of_model - np.where(treat_all > 0, worth, 0.0)
    n = truth.size
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    model_low, model_high = np.quantile(weights @ of_model, tails, axis=0)
    gain_low, gain_high = np.quantile(weights @ of_gain, tails, axis=0)
    return DecisionCurve(
        threshold=limits,
        model=of_model.mean(axis=0),
        model_low=model_low,
        model_high=model_high,
        treat_all=treat_all,
        gain=of_gain.mean(axis=0),
        gain_low=gain_low,
        gain_high=gain_high,
        n=n,
        n_positive=int(truth.sum()),
    )
