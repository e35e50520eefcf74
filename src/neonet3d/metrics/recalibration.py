"""Mend the calibration of a model: fitted on cases that it was not trained on, then applied.

Neither fit changes the order of the scores (unless the slope is negative), so neither changes the
AUC.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from neonet3d.errors import InputError
from neonet3d.metrics.ranking import Labels, Scores, split_by_class

TEMPERATURES = (0.05, 20.0)
"""A temperature stays within these; ours. Where few cases are ranked perfectly, or no better than
by chance, the likelihood has its maximum at 0 or at infinity."""


@dataclass(frozen=True)
class Recalibration:
    """A line from the logits of a model to the logits that fit the outcomes.

    Attributes:
        slope: Factor of the logit.
        intercept: Added afterwards.
        n: Number of cases it was fitted on.
        n_positive: How many of them were positive.
        at_limit: Whether the likelihood would have it beyond ``TEMPERATURES``.
    """

    slope: float
    intercept: float
    n: int
    n_positive: int
    at_limit: bool = False

    @property
    def temperature(self) -> float:
        """What the logits are divided by; above 1 the model was too sure."""
        return 1 / self.slope

    def apply(self, logits: Scores) -> Float[np.ndarray, " n"]:
        """Probabilities of being positive, ``[n]``, from logits of the same model, ``[n]``."""
        probabilities: Float[np.ndarray, " n"] = expit(
            self.intercept + self.slope * np.asarray(logits, dtype=np.float64)
        )
        return probabilities


def fit_temperature(labels: Labels, logits: Scores) -> Recalibration:
    """Temperature T of maximum likelihood, p = sigmoid(logit / T).

    One number, so that a few dozen cases suffice. It makes a model less sure, or more; it cannot
    move a prevalence: after training on balanced classes take ``fit_logistic``.

    Source: Guo et al., ICML 2017 (arXiv 1706.04599), for two classes.

    Args:
        labels: 1 or True for positive, 0 for negative, of cases the model was not trained on,
            ``[n]``.
        logits: Of those cases, ``[n]``.

    Raises:
        InputError: Lengths differ, a logit is not finite, or only one class is there.
    """
    positive, _ = split_by_class(labels, logits)
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)

    def gradient(slope: float) -> float:  # of the log likelihood; falls with the slope
        return float(((truth - expit(slope * values)) * values).sum())

    least, most = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    if gradient(least) <= 0:
        slope, at_limit = least, True
    elif gradient(most) >= 0:
        slope, at_limit = most, True
    else:
        slope, at_limit = float(brentq(gradient, least, most, xtol=1e-12)), False
    return Recalibration(slope, 0.0, labels.size, positive.size, at_limit)


def fit_logistic(labels: Labels, logits: Scores) -> Recalibration:
    """Slope and intercept of maximum likelihood, p = sigmoid(intercept + slope logit).

    Source: Cox, Biometrika 45 (1958) 562. Platt (1999) fits the same line to smoothed labels.

    Args:
        labels: 1 or True for positive, 0 for negative, of cases the model was not trained on,
            ``[n]``.
        logits: Of those cases, ``[n]``.

    Raises:
        InputError: As ``fit_temperature``; or all logits are equal; or a threshold separates the
            classes, so that the likelihood has no maximum.
    """
    positive, negative = split_by_class(labels, logits)
    values = np.asarray(logits, dtype=np.float64)
    if np.ptp(values) == 0:
        raise InputError(
            f"All {values.size} logits are {values[0]:g}, so there is no slope. Look at the model "
            "first: it says the same of every case."
        )
    if positive.min() >= negative.max() or negative.min() >= positive.max():
        raise InputError(
            f"A threshold separates the {positive.size} positive from the {negative.size} negative "
            "cases, so that no slope is steep enough. Pool the folds, or fit a temperature, which "
            "has a limit."
        )
    # Standardised, so that the solver's tolerance does not depend on the scale of the logits.
    centre, scale = values.mean(), values.std()
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=1000)
    model.fit(((values - centre) / scale)[:, None], np.asarray(labels, dtype=np.int64))
    slope = float(model.coef_[0, 0] / scale)
    intercept = float(model.intercept_[0] - slope * centre)
    return Recalibration(slope, intercept, labels.size, positive.size)


def fit_intercept(labels: Labels, logits: Scores) -> float:
    """Intercept of maximum likelihood with the slope held at 1: the mean prediction is right then.

    Raises:
        InputError: As ``fit_temperature``.
    """
    split_by_class(labels, logits)
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    # At these ends every probability lies below, and above, the prevalence.
    prevalence = np.log(truth.mean() / (1 - truth.mean()))
    low, high = prevalence - values.max() - 1, prevalence - values.min() + 1
    return float(brentq(lambda shift: (truth - expit(values + shift)).sum(), low, high, xtol=1e-12))
