import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, roc_curve

from neonet3d.errors import InputError
from neonet3d.metrics.operating_point import (
    accuracy_at,
    choose_sensitivity,
    choose_specificity,
    choose_youden,
)


@pytest.fixture
def cases() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    labels = (np.arange(128) < 44).astype(int)
    return labels, np.round(labels + rng.normal(size=128), 1)


def test_counts_are_those_of_scikit_learn_and_ends_those_of_scipy(
    cases: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, scores = cases
    found = accuracy_at(0.5, labels, scores)
    matrix = confusion_matrix(labels, scores >= 0.5).ravel()
    tn, fp, fn, tp = (int(count) for count in matrix)
    assert (found.true_negative, found.false_positive) == (tn, fp)
    assert (found.false_negative, found.true_positive) == (fn, tp)
    shares = (
        (found.sensitivity, tp, tp + fn),
        (found.specificity, tn, tn + fp),
        (found.ppv, tp, tp + fp),
        (found.npv, tn, tn + fn),
    )
    for interval, successes, n in shares:
        assert interval is not None
        assert interval.value == pytest.approx(successes / n, abs=1e-12)
        ends = binomtest(successes, n).proportion_ci(method="wilson")
        assert (interval.low, interval.high) == pytest.approx(tuple(ends), abs=1e-9)


def test_youden_is_the_maximum_of_scikit_learns_curve(
    cases: tuple[np.ndarray, np.ndarray],
) -> None:
    false_positive, true_positive, thresholds = roc_curve(*cases, drop_intermediate=False)
    index = true_positive - false_positive
    best = np.flatnonzero(index >= index.max() - 1e-12)
    chosen = choose_youden(*cases)
    assert chosen.threshold == thresholds[best[-1]]  # the lowest of equal ones
    assert (chosen.rule, chosen.n, chosen.n_positive) == ("Youden", 128, 44)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.95, 1.0])
def test_a_fixed_share_is_reached_with_the_best_of_the_other(
    share: float, cases: tuple[np.ndarray, np.ndarray]
) -> None:
    false_positive, true_positive, _ = roc_curve(*cases, drop_intermediate=False)
    sensitive = choose_sensitivity(*cases, share).evaluate(*cases)
    assert sensitive.sensitivity is not None
    assert sensitive.specificity is not None
    assert sensitive.sensitivity.value >= share
    best = 1 - false_positive[true_positive >= share].min()
    assert sensitive.specificity.value == pytest.approx(best, abs=1e-12)
    specific = choose_specificity(*cases, share).evaluate(*cases)
    assert specific.sensitivity is not None
    assert specific.specificity is not None
    assert specific.specificity.value >= share
    best = true_positive[1 - false_positive >= share - 1e-12].max()
    assert specific.sensitivity.value == pytest.approx(best, abs=1e-12)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=2, max_size=40),
    st.floats(0.05, 1),
)
def test_what_is_asked_of_the_chosen_cases_is_always_reached(cases, share) -> None:
    labels, scores = (np.array(column) for column in zip(*cases, strict=True))
    assume(labels.min() < labels.max())
    scores = scores / 3
    sensitive = choose_sensitivity(labels, scores, share).evaluate(labels, scores)
    specific = choose_specificity(labels, scores, share).evaluate(labels, scores)
    assert sensitive.sensitivity.value >= share - 1e-12
    assert specific.specificity.value >= share - 1e-12
    # The next threshold in the other direction would not reach it, or is no other.
    above = scores[scores > choose_sensitivity(labels, scores, share).threshold]
    if above.size:
        assert accuracy_at(above.min(), labels, scores).sensitivity.value < share


def test_a_threshold_promises_more_where_it_was_chosen() -> None:
    """Why choosing and evaluating are apart: Youden's index of noise, chosen and held out."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [26, 14])
    inner, outer = [], []
    for _ in range(200):
        scores, new = rng.normal(size=(2, 40))
        chosen = choose_youden(labels, scores)
        for index, of in ((inner, scores), (outer, new)):
            found = chosen.evaluate(labels, of)
            assert found.sensitivity is not None
            assert found.specificity is not None
            index.append(found.sensitivity.value + found.specificity.value - 1)
    assert np.mean(inner) > 0.15
    assert abs(np.mean(outer)) < 0.03


def test_without_calls_or_cases_there_is_no_share() -> None:
    found = accuracy_at(5.0, np.zeros(3, int), np.arange(3.0))
    assert (found.sensitivity, found.ppv) == (None, None)
    assert found.specificity is not None
    assert found.specificity.value == 1
    # The highest score is of a negative case: the threshold is above all scores.
    nobody = choose_specificity(np.array([1, 0]), np.array([0.0, 1.0]), 1.0)
    assert nobody.threshold > 1
    assert nobody.evaluate(np.array([1, 0]), np.array([0.0, 1.0])).ppv is None


def test_errors_are_sentences() -> None:
    labels, scores = np.array([0, 1]), np.arange(2.0)
    with pytest.raises(InputError, match="sensitivity asked for is 90"):
        choose_sensitivity(labels, scores, 90)
    with pytest.raises(InputError, match="specificity asked for is 0"):
        choose_specificity(labels, scores, 0)
    with pytest.raises(InputError, match="0 positive and 2 negative"):
        choose_youden(np.zeros(2, int), scores)
