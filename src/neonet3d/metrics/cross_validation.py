"""What may be said of an AUC, or of a difference, that comes from cross-validation.

Two figures answer two questions. The pooled AUC ranks every patient against every other with their
out-of-fold scores, so it asks whether one threshold would do for all; it needs scores that compare
between folds, and falls where the folds' models are calibrated apart. The mean of the folds' AUCs
compares within a fold alone: it is the mean worth of the models, noisy where a fold has few
positives, and there are no folds of one class in it. Report both; where they differ by much, look
at the calibration of the folds.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from neonet3d.errors import InputError
from neonet3d.metrics.discrimination import PairedComparison, auc, placement_interval
from neonet3d.metrics.interval import Interval, check_confidence
from neonet3d.metrics.ranking import Labels, placements, split_by_class


@dataclass(frozen=True)
class CrossValidatedAuc:
    """AUC of (repeated) cross-validation, pooled and by fold.

    Attributes:
        pooled: Of all out-of-fold scores; over repetitions the mean of their pooled AUCs. DeLong's
            interval, in which every patient counts once.
        fold_mean: Mean of the folds' AUCs with the corrected t-interval, cut to [0, 1]; nan where
            no fold has an AUC, without ends where one has or all are equal.
        fold_aucs: Of each fold of each repetition, ``[r][k]``; nan where a fold lacks a class.
        repeat_aucs: Pooled, of each repetition, ``[r]``.
    """

    pooled: Interval
    fold_mean: Interval
    fold_aucs: tuple[tuple[float, ...], ...]
    repeat_aucs: tuple[float, ...]

    @property
    def n_folds_without(self) -> int:
        """Number of folds that hold one class only and so have no AUC."""
        return int(np.isnan([value for row in self.fold_aucs for value in row]).sum())


def cross_validated_auc(
    labels: Labels,
    scores: Float[np.ndarray, "r n"],
    folds: Int[np.ndarray, "r n"],
    *,
    confidence: float = 0.95,
) -> CrossValidatedAuc:
    """Pooled AUC and mean AUC of the folds, of cross-validation that was done ``r`` times.

    The pooled interval takes the scores as given. That the patients train each other's models is
    not in it, and no unbiased estimate of that variance exists (Bengio & Grandvalet, JMLR 5 (2004)
    1089).

    Sources: Forman & Scholz, SIGKDD Explor. 12 (2010) 49, and Airola et al., Comput. Stat. Data
    Anal. 55 (2011) 1828, for pooled and averaged. That repetitions are averaged by patient, by the
    mean of their placement values, is ours: it is DeLong's estimator of that mean AUC.

    Args:
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        scores: Out-of-fold scores of each repetition, ``[r, n]``.
        folds: Fold that held the case out, in each repetition, ``[r, n]``.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: Shapes do not fit, a score is not finite, a class has under two cases, or a
            repetition has under two folds.
    """
    if scores.ndim != 2 or not len(scores) or scores.shape != folds.shape:
        raise InputError(
            f"The scores have the shape {scores.shape} and the folds {folds.shape}. Give a row for "
            "each repetition and a column for each case, both alike; one repetition is one row."
        )
    placed, aucs, tested = [], [], []
    for row, of in zip(scores, folds, strict=True):
        placed.append(placements(*split_by_class(labels, row, at_least=2)))
        names = np.unique(of)
        if names.size < 2:
            raise InputError(
                f"All cases are in fold {names[0]}, but what was held out at once was not "
                "cross-validated. Give the fold that held each case out."
            )
        members = [of == name for name in names]
        aucs.append(tuple(_auc_or_nan(labels[inside], row[inside]) for inside in members))
        tested.append([int(inside.sum()) for inside in members])
    flat = np.array([value for row in aucs for value in row])
    has_auc = ~np.isnan(flat)
    method = "mean of folds"
    fold_mean = Interval(float("nan"), float("nan"), float("nan"), labels.size, None, method)
    if has_auc.any():
        n_test = float(np.array([n for row in tested for n in row])[has_auc].mean())
        found = corrected_t(flat[has_auc], labels.size - n_test, n_test, confidence=confidence)
        low, high = np.clip([found.low, found.high], 0, 1)
        fold_mean = replace(found, low=float(low), high=float(high))
    fold_mean = replace(fold_mean, n=labels.size, n_positive=int(labels.sum()))
    return CrossValidatedAuc(
        pooled=placement_interval(
            np.mean([positive for positive, _ in placed], axis=0),
            np.mean([negative for _, negative in placed], axis=0),
            confidence,
        ),
        fold_mean=fold_mean,
        fold_aucs=tuple(aucs),
        repeat_aucs=tuple(float(positive.mean()) for positive, _ in placed),
    )


def corrected_t(
    values: Float[np.ndarray, " j"], n_train: float, n_test: float, *, confidence: float = 0.95
) -> Interval:
    """Mean over resamplings of one data set with the corrected t-interval of Nadeau and Bengio.

    mean +- t s sqrt(1 / j + n_test / n_train), with j - 1 degrees of freedom. The plain interval
    has 1 / j alone, as if each fold were new data; it may be made as short as one likes by
    repeating. Here the second term stays: for five folds the error is 1.5 times the plain one, for
    ten times five folds 3.7 times.

    Sources: Nadeau & Bengio, Mach. Learn. 52 (2003) 239; Bouckaert & Frank, PAKDD 2004,
    for repeated cross-validation.

    Args:
        values: One figure for each fold of each repetition, or the difference of two models,
            ``[j]``.
        n_train: Cases that a model was trained on; the mean where folds differ.
        n_test: Cases that it was tested on.
        confidence: Two-sided confidence, a fraction.

    Returns:
        The interval; ``n`` counts values, which are not independent. One value has no ends, nor
        have equal values: their variance is not known to be zero.

    Raises:
        InputError: No values, one is not finite, or a count is not positive.
    """
    error = _corrected_error(values, n_train, n_test)
    check_confidence(confidence)
    mean = float(values.mean())
    method = f"corrected resampled t, {values.size} values, {confidence:.0%}"
    if np.ptp(values) < 1e-12:
        method += " (not defined: zero variance)"
        return Interval(mean, float("nan"), float("nan"), values.size, None, method)
    half = float(stats.t.ppf((1 + confidence) / 2, values.size - 1)) * error
    return Interval(mean, mean - half, mean + half, values.size, None, method)


def corrected_t_test(
    values_a: Float[np.ndarray, " j"],
    values_b: Float[np.ndarray, " j"],
    n_train: float,
    n_test: float,
    *,
    confidence: float = 0.95,
) -> PairedComparison:
    """Compare two models over the same folds by the corrected resampled t-test; A minus B.

    It asks whether the ways of training differ, on data sets of this size; ``delong_paired`` asks
    of two given models. Where all differences are equal there is no variance: p is 1 where they
    are 0, and nan otherwise.

    Args:
        values_a: Figure of model A in each fold of each repetition, ``[j]``.
        values_b: Of model B in the same folds, ``[j]``.
        n_train: Cases that a model was trained on; the mean where folds differ.
        n_test: Cases that it was tested on.
        confidence: Two-sided confidence, a fraction.

    Raises:
        InputError: As ``corrected_t``; or the lengths differ, or there is one value only.
    """
    if values_a.shape != values_b.shape or values_a.size < 2:
        raise InputError(
            f"Model A has {values_a.size} values and model B {values_b.size}. Give one of each for "
            "the same folds, two folds or more."
        )
    differences = values_a - values_b
    interval = corrected_t(differences, n_train, n_test, confidence=confidence)
    if np.ptp(differences) < 1e-12:
        p_value = float("nan")
        if abs(interval.value) < 1e-12:
            p_value, interval = 1.0, replace(interval, value=0.0, low=0.0, high=0.0)
    else:
        error = _corrected_error(differences, n_train, n_test)
        p_value = float(2 * stats.t.sf(abs(interval.value) / error, differences.size - 1))
    return PairedComparison(interval.value, interval, p_value)


def _corrected_error(values: Float[np.ndarray, " j"], n_train: float, n_test: float) -> float:
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise InputError(
            f"The values of the folds have the shape {values.shape}, or one is not finite. Give a "
            "list with one finite figure for each fold, and leave out folds that have none."
        )
    if not (n_train > 0 and n_test > 0):
        raise InputError(
            f"There are {n_train:g} training and {n_test:g} test cases. Give how many cases each "
            "model was trained and tested on."
        )
    if values.size < 2:
        return float("nan")
    return float(values.std(ddof=1) * np.sqrt(1 / values.size + n_test / n_train))


def _auc_or_nan(labels: Labels, scores: Float[np.ndarray, " n"]) -> float:
    both = 0 < int(labels.sum()) < labels.size
    return auc(labels, scores) if both else float("nan")
