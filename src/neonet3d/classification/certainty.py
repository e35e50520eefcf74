"""How sure a prediction is, from what the members of an ensemble said of the cases they left out.

Each member was trained without one part of the training cases, and all of it that is fitted here
is fitted on its logits of that part: the scale of probabilities, prediction sets with a coverage,
and how unlike the other cases a familiar case may be. Encoder and anatomy prior did see those cases
(never those of a held-out fold, and, unless the encoder is trained along, never their outcomes);
that is a limit of it, and our choice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from scipy.special import expit
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from neonet3d.metrics.conformal import cross_conformal
from neonet3d.metrics.recalibration import fit_intercept, fit_temperature

COVERAGE = 0.9  # of the prediction sets, in each class
CONFIDENCE = 0.95  # of the interval
UNFAMILIAR = 0.02  # share of familiar cases that may be called unfamiliar


@dataclass(frozen=True)
class Prediction:
    """What is said of n cases.

    Attributes:
        probability: of the outcome, at the prevalence of the training cases.
        low, high: 95 % interval by the delete-a-group jackknife (Kott 2001) over the members: how
            far the probability would move with other training cases. It says nothing of chance in
            the patient.
        may_be: (n, 2) whether 0, and whether 1, is in the cross-conformal set of 90 % coverage.
        familiarity: share of training cases that lie as far from the others, or farther.
        unfamiliar: the case is like hardly any of training, and no figure here is to be trusted.
    """

    probability: Float[np.ndarray, " n"]
    low: Float[np.ndarray, " n"]
    high: Float[np.ndarray, " n"]
    may_be: Bool[np.ndarray, "n 2"]
    familiarity: Float[np.ndarray, " n"]
    unfamiliar: Bool[np.ndarray, " n"]


class Certainty(nn.Module):
    """Fitted on the real training cases.

    Buffers: ``slope`` and ``intercept`` of the calibrated logit; ``left_out`` (n,), ``outcomes``
    (n,) and ``members`` (n,): logit of each case from the member that left it out, and which member
    that was; ``trait_mean`` (d,) and ``trait_precision`` (d, d); ``distances`` (n,) of each case
    from the others, sorted.
    """

    slope: Tensor
    intercept: Tensor
    left_out: Tensor
    outcomes: Tensor
    members: Tensor
    trait_mean: Tensor
    trait_precision: Tensor
    distances: Tensor

    def __init__(self, n_cases: int, n_traits: int) -> None:
        super().__init__()
        double = torch.float64
        self.register_buffer("slope", torch.ones((), dtype=double))
        self.register_buffer("intercept", torch.zeros((), dtype=double))
        self.register_buffer("left_out", torch.zeros(n_cases, dtype=double))
        for name in ("outcomes", "members"):
            self.register_buffer(name, torch.zeros(n_cases, dtype=torch.long))
        self.register_buffer("trait_mean", torch.zeros(n_traits, dtype=double))
        self.register_buffer("trait_precision", torch.eye(n_traits, dtype=double))
        self.register_buffer("distances", torch.zeros(n_cases, dtype=double))

    def fit(
        self,
        logits: Float[np.ndarray, " n"],
        outcomes: Int[np.ndarray, " n"],
        traits: Float[np.ndarray, "n d"],
        members: Int[np.ndarray, " n"],
    ) -> None:
        """Measure every buffer.

        The temperature (Guo et al. 2017) and then an intercept that makes the mean probability
        the prevalence: the order of cases stays, whatever the logits are worth. Both are fitted on
        single members, whose logits scatter more than their mean: probabilities may be too mild.

        Args:
            logits: of the member that left the case out, under balanced classes.
            members: which member that was.
        """
        prior = float(np.log(outcomes.mean() / (1 - outcomes.mean())))
        slope = fit_temperature(outcomes, logits + prior).slope
        self.slope.fill_(slope)
        self.intercept.fill_(slope * prior + fit_intercept(outcomes, slope * (logits + prior)))
        self.left_out.copy_(torch.from_numpy(logits))
        self.outcomes.copy_(torch.from_numpy(outcomes))
        self.members.copy_(torch.from_numpy(members))
        distances = np.zeros(len(traits))
        for member in np.unique(members):
            own = members == member
            mean, precision = _gaussian(traits[~own])
            distances[own] = _distance(traits[own], mean, precision)
        self.distances.copy_(torch.from_numpy(np.sort(distances)))
        mean, precision = _gaussian(traits)
        self.trait_mean.copy_(torch.from_numpy(mean))
        self.trait_precision.copy_(torch.from_numpy(precision))

    def probability(self, logits: Float[np.ndarray, "*k n"]) -> Float[np.ndarray, "*k n"]:
        """Calibrated, from logits under balanced classes."""
        scores = self.slope.item() * logits.astype(np.float64) + self.intercept.item()
        return np.asarray(expit(scores))

    def predict(
        self, logits: Float[np.ndarray, "k n"], traits: Float[np.ndarray, "n d"]
    ) -> Prediction:
        """Of new cases, from the logits of the k members."""
        k, centre = len(logits), logits.mean(0)
        spread = np.sqrt((k - 1) / k * ((logits - centre) ** 2).sum(0))
        reach = stats.t.ppf(0.5 + CONFIDENCE / 2, k - 1) * spread
        n = len(self.distances)
        outcomes, left_out, members = (
            of.cpu().numpy() for of in (self.outcomes, self.left_out, self.members)
        )
        sets = cross_conformal(outcomes, left_out, members, logits, COVERAGE)
        mean, precision = self.trait_mean.cpu().numpy(), self.trait_precision.cpu().numpy()
        distance, known = _distance(traits, mean, precision), self.distances.cpu().numpy()
        nearer = np.searchsorted(known, distance, side="left")
        familiarity = (1 + n - nearer) / (n + 1)
        return Prediction(
            probability=self.probability(centre),
            low=self.probability(centre - reach),
            high=self.probability(centre + reach),
            may_be=sets,
            familiarity=familiarity,
            unfamiliar=(familiarity <= UNFAMILIAR) | (nearer == n),
        )


def _gaussian(
    traits: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Mean and precision, the covariance shrunk (Ledoit & Wolf 2004) on standardised traits.

    Of one case there is no covariance: every trait counts in its own unit.
    """
    if len(traits) == 1:
        return traits[0], np.eye(traits.shape[1])
    mean, spread = traits.mean(0), traits.std(0).clip(1e-6)
    fitted = LedoitWolf(assume_centered=True).fit((traits - mean) / spread)
    return mean, fitted.precision_ / np.outer(spread, spread)


def _distance(
    traits: Float[np.ndarray, "n d"],
    mean: Float[np.ndarray, " d"],
    precision: Float[np.ndarray, "d d"],
) -> Float[np.ndarray, " n"]:
    """Mahalanobis."""
    apart = traits.astype(np.float64) - mean
    return np.sqrt(np.einsum("nd,de,ne->n", apart, precision, apart).clip(0))
