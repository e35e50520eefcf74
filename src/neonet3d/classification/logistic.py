"""Logistic regression with an L2 penalty on standardised features, for tables of numbers."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from torch import Tensor, nn

from neonet3d.errors import InputError

LARGEST = 4.0  # standard deviations; a feature that is further off says no more
STRENGTHS = tuple(10.0**power for power in (-4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0))
INNER_FOLDS = 5


class LogisticModel(nn.Module):
    """Logit of the outcome from (n, f) features; what is not known (nan) counts as the mean.

    Buffers: ``mean``, ``spread`` and ``weight`` (f,), ``bias`` and ``prior_logit``.
    """

    mean: Tensor
    spread: Tensor
    weight: Tensor
    bias: Tensor
    prior_logit: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(n_features, dtype=torch.float64))
        self.register_buffer("weight", torch.zeros(n_features, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float64))
        self.register_buffer("prior_logit", torch.zeros(()))

    def fit(
        self,
        features: Float[np.ndarray, "n f"],
        outcomes: Int[np.ndarray, " n"],
        weights: Float[np.ndarray, " n"],
        patients: np.ndarray,
        known: Int[np.ndarray, " m"],
        *,
        seed: int,
    ) -> float:
        """Standardise, choose the penalty by the AUC of inner folds over patients, fit.

        Args:
            weights: of each case in the loss.
            patients: cases of one patient stay in one inner fold.
            known: rows that the inner folds are judged on (``training_set.judged``).

        Returns:
            The strength that was chosen (scikit-learn's C).

        Raises:
            InputError: fewer than two patients in a class.
        """
        fewest = min(len(np.unique(patients[outcomes == y])) for y in (0, 1))
        if fewest < 2:
            raise InputError(
                "A class has one patient, and the inner folds that choose the penalty need two "
                "patients of each class. Add cases."
            )
        there = ~np.isnan(features).all(0)  # of a column that no case has, mean and spread are 0
        mean, spread = np.zeros((2, features.shape[1]))
        mean[there] = np.nanmean(features[:, there], axis=0)
        spread[there] = np.nanstd(features[:, there], axis=0)
        self.mean.copy_(torch.from_numpy(mean))
        self.spread.copy_(torch.from_numpy(np.where(spread > 0, spread, 1.0)))
        folds = StratifiedGroupKFold(min(INNER_FOLDS, fewest), shuffle=True, random_state=seed)
        splits = [
            (rest, np.intersect1d(part, known))
            for rest, part in folds.split(features, outcomes, patients)
        ]
        splits = [split for split in splits if len(np.unique(outcomes[split[1]])) == 2]
        if not splits:
            raise InputError(
                "No inner fold has real patients of both classes to choose the penalty on. Add "
                "cases."
            )
        search = GridSearchCV(
            LogisticRegression(max_iter=5000), {"C": STRENGTHS}, scoring="roc_auc", cv=splits
        )
        standard = self._standardised(torch.from_numpy(features)).numpy()
        search.fit(standard, outcomes, sample_weight=weights)
        best = search.best_estimator_
        self.weight.copy_(torch.from_numpy(best.coef_[0]))
        self.bias.fill_(float(best.intercept_[0]))
        return float(best.C)

    def forward(self, features: Float[Tensor, "n f"]) -> Float[Tensor, " n"]:
        return self._standardised(features) @ self.weight + self.bias

    def probability(self, logit: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Classes weighed alike in training; the log odds of the prevalence are added back."""
        return torch.sigmoid(logit + self.prior_logit)

    def _standardised(self, features: Float[Tensor, "n f"]) -> Float[Tensor, "n f"]:
        scaled = (features.double() - self.mean) / self.spread
        return scaled.nan_to_num(0.0).clamp(-LARGEST, LARGEST)
