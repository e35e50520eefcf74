"""Conformal prediction sets of a binary outcome: "positive", "negative", both or neither.

Both means that the model cannot say at this coverage, neither that the case is unlike the
calibration cases of either class.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from neonet3d.errors import InputError
from neonet3d.metrics.interval import Interval, wilson
from neonet3d.metrics.ranking import Labels, Scores, split_by_class


@dataclass(frozen=True)
class ConformalSets:
    """Two thresholds that make prediction sets, one for each class.

    Attributes:
        positive_from: "positive" is in the set from this score on; -inf where there were too few
            positive calibration cases to leave it out of any set.
        negative_to: "negative" is in the set up to this score; +inf likewise.
        coverage: What they were made for, a fraction.
        n_positive: Number of positive calibration cases.
        n_negative: Number of negative ones.
    """

    positive_from: float
    negative_to: float
    coverage: float
    n_positive: int
    n_negative: int

    def predict(self, scores: Scores) -> Bool[np.ndarray, "n 2"]:
        """Whether "negative" (column 0) and "positive" (column 1) are in the set of each case.

        Raises:
            InputError: A score is not finite.
        """
        if not np.isfinite(scores).all():
            raise InputError(
                "A score is not finite, so there is no prediction set of its case. Leave the case "
                "out, and say so."
            )
        return np.stack([scores <= self.negative_to, scores >= self.positive_from], axis=1)


@dataclass(frozen=True)
class ConformalCoverage:
    """What prediction sets do on cases they were not made from; Wilson intervals.

    Attributes:
        covered: Share of cases whose set holds their class.
        covered_positive: Of the positive cases; None without any.
        covered_negative: Of the negative cases; None without any.
        one_class: Share of sets with one class: the model commits itself.
        both_classes: Share of sets with both.
        no_class: Share of empty sets.
        right_of_one_class: Of the sets with one class, the share that is right; no coverage is
            promised of these alone. None without any.
        mean_size: Mean number of classes in a set.
    """

    covered: Interval
    covered_positive: Interval | None
    covered_negative: Interval | None
    one_class: Interval
    both_classes: Interval
    no_class: Interval
    right_of_one_class: Interval | None
    mean_size: float


def fit_conformal(labels: Labels, scores: Scores, coverage: float = 0.9) -> ConformalSets:
    """Thresholds that cover each class with at least this probability (Mondrian, by class).

    A class is left out of a set where the score is less typical of it than that of the k-th of its
    n calibration cases, k = ceil((n + 1) coverage). If a new case of the class is exchangeable with
    these, its set holds it with probability k / (n + 1) or more, whatever the model is worth; a
    worse model pays with larger sets. The probability is over the draw of the calibration cases
    too: with few of them, the coverage of one set of thresholds scatters (as Beta(k, n + 1 - k)).
    With n + 1 below 1 / (1 - coverage) the class is in every set: 0.9 takes 9 cases of each class,
    0.95 takes 19. Coverage is of a class, and not of a patient with a given score.

    Sources: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005), chapter 4;
    Vovk, Mach. Learn. 92 (2013) 349, for the Beta law; Sadinle, Lei & Wasserman, JASA 114 (2019)
    223, for the score of the class itself as measure of conformity.

    Args:
        labels: 1 or True for positive, 0 for negative, of calibration cases that neither trained
            the model nor chose it, ``[n]``, one for each patient.
        scores: Finite, higher means more likely positive, ``[n]``; only their order counts.
        coverage: Of each class, a fraction.

    Raises:
        InputError: Lengths differ, a score is not finite, only one class is there, or the coverage
            is not a fraction.
    """
    _require_fraction(coverage)
    positive, negative = split_by_class(labels, scores)
    return ConformalSets(
        positive_from=-_finite_sample_quantile(-positive, coverage),
        negative_to=_finite_sample_quantile(negative, coverage),
        coverage=coverage,
        n_positive=positive.size,
        n_negative=negative.size,
    )


def cross_conformal(
    labels: Labels,
    scores: Scores,
    members: Int[np.ndarray, " n"],
    new: Float[np.ndarray, "k m"],
    coverage: float = 0.9,
) -> Bool[np.ndarray, "m 2"]:
    """Sets from an ensemble whose members each left out a part of the calibration cases.

    Every member compares a new case with the cases that it left itself, so that like is compared
    with like: scores of single members scatter more than their mean. With one member these are the
    sets of ``fit_conformal``. The coverage of a class is about ``coverage``, and more where members
    differ much; proven is no more than 1 - 2 (1 - coverage), less about k / n.

    Sources: Vovk, Ann. Math. Artif. Intell. 74 (2015) 9; Vovk et al., COPA 2018, for the proof.

    Args:
        labels: 1 or True for positive, 0 for negative, of the calibration cases.
        scores: Of the member that left the case out; higher means more likely positive.
        members: Which member that was, 0 to k - 1.
        new: Scores of every member for the new cases.
        coverage: Of each class, a fraction.

    Returns:
        Whether "negative" (column 0) and "positive" (column 1) are in the set of each case.

    Raises:
        InputError: Lengths differ, a score is not finite, only one class is there, or the coverage
            is not a fraction.
    """
    _require_fraction(coverage)
    split_by_class(labels, scores)
    if not np.isfinite(new).all():
        raise InputError("A score of a new case is not finite. Look at that case's scan.")
    held = np.zeros((new.shape[1], 2), dtype=bool)
    for label, sign in ((0, -1.0), (1, 1.0)):
        of_class = np.asarray(labels) == label
        typical = sign * scores[of_class, None] <= sign * new[members[of_class]]
        left = np.round((of_class.sum() + 1) * (1 - coverage), 9)
        held[:, label] = typical.sum(axis=0) + 1 > left
    return held


def evaluate_conformal(
    sets: ConformalSets, labels: Labels, scores: Scores, *, confidence: float = 0.95
) -> ConformalCoverage:
    """Coverage and sizes of prediction sets on held-out cases.

    Args:
        sets: From ``fit_conformal``, on other cases.
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        scores: Of the same model, ``[n]``.
        confidence: Two-sided confidence of the Wilson intervals, a fraction.

    Raises:
        InputError: Lengths differ, a score is not finite, or there is no case.
    """
    split_by_class(labels, scores, at_least=0)
    held = sets.predict(scores)
    truth = np.asarray(labels) == 1
    covered = np.where(truth, held[:, 1], held[:, 0])
    size = held.sum(axis=1)

    def share(of: Bool[np.ndarray, " n"], among: Bool[np.ndarray, " n"]) -> Interval | None:
        n = int(among.sum())
        return wilson(int((of & among).sum()), n, confidence=confidence) if n else None

    def share_of_all(of: Bool[np.ndarray, " n"]) -> Interval:
        return wilson(int(of.sum()), of.size, confidence=confidence)

    return ConformalCoverage(
        covered=share_of_all(covered),
        covered_positive=share(covered, truth),
        covered_negative=share(covered, ~truth),
        one_class=share_of_all(size == 1),
        both_classes=share_of_all(size == 2),
        no_class=share_of_all(size == 0),
        right_of_one_class=share(covered, size == 1),
        mean_size=float(size.mean()),
    )


def _require_fraction(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise InputError(
            f"The coverage is {coverage:g}, but it is a fraction between 0 and 1: give 0.9 for "
            "90 %."
        )


def _finite_sample_quantile(values: Float[np.ndarray, " n"], coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest value; infinite beyond the last."""
    # Rounded first: (29 + 1) 0.9 is a little over 27 in floating point.
    rank = int(np.ceil(np.round((values.size + 1) * coverage, 9)))
    return float(np.sort(values)[rank - 1]) if rank <= values.size else float("inf")
