"""A threshold chosen on some cases, and what it does on others.

The two steps are apart on purpose: choose on training or inner-split cases, evaluate on held-out
ones. A threshold that is chosen on the cases it is judged on promises too much.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neonet3d.errors import InputError
from neonet3d.metrics.interval import Interval, check_confidence, wilson
from neonet3d.metrics.ranking import Labels, Scores, split_by_class


@dataclass(frozen=True)
class DiagnosticAccuracy:
    """Counts at a threshold, and their shares with Wilson intervals; None of no case.

    The predictive values hold at this prevalence alone.

    Attributes:
        threshold: A case is called positive from this score on.
        true_positive, false_positive, true_negative, false_negative: Numbers of cases.
        sensitivity: Of the positive cases, the share that is called positive.
        specificity: Of the negative cases, the share that is called negative.
        ppv: Positive predictive value: of those called positive, the share that is.
        npv: Negative predictive value: of those called negative, the share that is.
    """

    threshold: float
    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int
    sensitivity: Interval | None
    specificity: Interval | None
    ppv: Interval | None
    npv: Interval | None


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and where it comes from.

    Attributes:
        threshold: A case is called positive from this score on.
        rule: How it was chosen, for the caption.
        n: Number of cases it was chosen on.
        n_positive: How many of them were positive.
    """

    threshold: float
    rule: str
    n: int
    n_positive: int

    def evaluate(
        self, labels: Labels, scores: Scores, *, confidence: float = 0.95
    ) -> DiagnosticAccuracy:
        """Accuracy of this threshold on cases that it was not chosen on; see ``accuracy_at``."""
        return accuracy_at(self.threshold, labels, scores, confidence=confidence)


def accuracy_at(
    threshold: float, labels: Labels, scores: Scores, *, confidence: float = 0.95
) -> DiagnosticAccuracy:
    """Sensitivity, specificity and predictive values where positive means score >= threshold.

    Args:
        threshold: In the units of the scores.
        labels: 1 or True for positive, 0 for negative, ``[n]``, one for each patient.
        scores: Finite, higher means more likely positive, ``[n]``.
        confidence: Two-sided confidence of the Wilson intervals, a fraction.

    Raises:
        InputError: Lengths differ, a score is not finite, or the confidence is out of range.
    """
    check_confidence(confidence)
    positive, negative = split_by_class(labels, scores, at_least=0)
    found = int((positive >= threshold).sum())
    false = int((negative >= threshold).sum())
    missed, rejected = positive.size - found, negative.size - false

    def share(successes: int, n: int) -> Interval | None:
        return wilson(successes, n, confidence=confidence) if n else None

    return DiagnosticAccuracy(
        threshold=threshold,
        true_positive=found,
        false_positive=false,
        true_negative=rejected,
        false_negative=missed,
        sensitivity=share(found, positive.size),
        specificity=share(rejected, negative.size),
        ppv=share(found, found + false),
        npv=share(rejected, rejected + missed),
    )


def choose_youden(labels: Labels, scores: Scores) -> OperatingPoint:
    """The threshold with the largest sensitivity + specificity - 1; of equal ones the lowest.

    It weighs a missed case like a false alarm, whatever the prevalence. That the more sensitive of
    equal thresholds is taken is ours.

    Source: Youden, Cancer 3 (1950) 32.

    Args:
        labels: 1 or True for positive, 0 for negative, of the cases to choose on, ``[n]``.
        scores: Finite, higher means more likely positive, ``[n]``.

    Raises:
        InputError: Lengths differ, a score is not finite, or only one class is there.
    """
    thresholds, sensitivity, specificity = _curve(labels, scores)
    # Compared with a tolerance, since equal sums of fractions may differ in the last bit.
    index = sensitivity + specificity - 1
    best = int(np.flatnonzero(index >= index.max() - 1e-12)[0])
    return OperatingPoint(float(thresholds[best]), "Youden", labels.size, int(labels.sum()))


def choose_sensitivity(labels: Labels, scores: Scores, at_least: float) -> OperatingPoint:
    """The highest threshold with at least this sensitivity on these cases.

    On other cases it holds on average only roughly: read the interval of ``evaluate``.

    Args:
        labels: 1 or True for positive, 0 for negative, of the cases to choose on, ``[n]``.
        scores: Finite, higher means more likely positive, ``[n]``.
        at_least: Sensitivity, above 0, at most 1.

    Raises:
        InputError: As ``choose_youden``, or the sensitivity is out of range.
    """
    _check_share("sensitivity", at_least)
    thresholds, sensitivity, _ = _curve(labels, scores)
    last = int(np.flatnonzero(sensitivity >= at_least - 1e-12)[-1])
    rule = f"sensitivity >= {at_least:g}"
    return OperatingPoint(float(thresholds[last]), rule, labels.size, int(labels.sum()))


def choose_specificity(labels: Labels, scores: Scores, at_least: float) -> OperatingPoint:
    """The lowest threshold with at least this specificity on these cases.

    Where the highest score is of a negative case, the threshold may lie just above all scores.

    Args:
        labels: 1 or True for positive, 0 for negative, of the cases to choose on, ``[n]``.
        scores: Finite, higher means more likely positive, ``[n]``.
        at_least: Specificity, above 0, at most 1.

    Raises:
        InputError: As ``choose_youden``, or the specificity is out of range.
    """
    _check_share("specificity", at_least)
    thresholds, _, specificity = _curve(labels, scores)
    first = int(np.flatnonzero(specificity >= at_least - 1e-12)[0])
    rule = f"specificity >= {at_least:g}"
    return OperatingPoint(float(thresholds[first]), rule, labels.size, int(labels.sum()))


def _curve(
    labels: Labels, scores: Scores
) -> tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Every threshold that differs, rising, the last above all scores; both shares at each."""
    positive, negative = split_by_class(labels, scores)
    levels = np.unique(np.concatenate([positive, negative]))
    thresholds = np.append(levels, np.nextafter(levels[-1], np.inf))
    below_positive = np.searchsorted(np.sort(positive), thresholds)
    below_negative = np.searchsorted(np.sort(negative), thresholds)
    return thresholds, 1 - below_positive / positive.size, below_negative / negative.size


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise InputError(f"The {name} asked for is {value:g}: give a share above 0, such as 0.9.")
