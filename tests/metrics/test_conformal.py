import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest, kstest, norm

from neonet3d.errors import InputError
from neonet3d.metrics.conformal import (
    ConformalSets,
    cross_conformal,
    evaluate_conformal,
    fit_conformal,
)


def test_thresholds_by_hand() -> None:
    """Nine cases of each class and 80 %: the eighth of nine is the limit."""
    labels = np.repeat([1, 0], 9)
    scores = np.concatenate([np.arange(1.0, 10.0), np.arange(-9.0, 0.0)])
    sets = fit_conformal(labels, scores, 0.8)
    assert (sets.positive_from, sets.negative_to) == (2, -2)
    assert (sets.n_positive, sets.n_negative) == (9, 9)
    held = sets.predict(np.array([-2.0, 0.0, 2.0]))
    assert held.tolist() == [[True, False], [False, False], [False, True]]


def test_ninety_per_cent_takes_nine_cases_of_a_class() -> None:
    """(29 + 1) 0.9 is 27 and no more, whatever floating point says; with 8 nothing is left out."""
    for n, rank in ((9, 9), (29, 27), (99, 90)):
        sets = fit_conformal(np.repeat([1, 0], n), np.tile(np.arange(float(n)), 2), 0.9)
        assert sets.negative_to == rank - 1
        assert sets.positive_from == n - rank
    few = fit_conformal(np.repeat([1, 0], [8, 9]), np.arange(17.0), 0.9)
    assert few.positive_from == -np.inf
    assert few.predict(np.array([-1e9]))[0, 1]


def test_each_class_is_covered_whatever_the_model() -> None:
    """Mean coverage lies between 1 - alpha and that plus 1 / (n + 1); it scatters as a Beta."""
    rng = np.random.default_rng(0)
    n, labels = {1: 19, 0: 39}, np.repeat([1, 0], [19, 39])
    for separation in (0.0, 1.5):
        of_positive, of_negative = [], []
        for _ in range(1500):
            sets = fit_conformal(labels, rng.normal(size=58) + separation * labels, 0.9)
            of_positive.append(norm.sf(sets.positive_from - separation))
            of_negative.append(norm.cdf(sets.negative_to))
        for found, size in ((of_positive, n[1]), (of_negative, n[0])):
            rank = int(0.9 * (size + 1))
            assert np.mean(found) == pytest.approx(rank / (size + 1), abs=0.006)
            assert kstest(found, beta(rank, size + 1 - rank).cdf).pvalue > 0.01


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.98))
def test_the_calibration_cases_themselves_are_covered(seed: int, coverage: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1, 0], [12, 20]))
    scores = np.round(rng.normal(size=32), 1)
    found = evaluate_conformal(fit_conformal(labels, scores, coverage), labels, scores)
    assert found.covered_positive is not None
    assert found.covered_negative is not None
    assert min(found.covered_positive.value, found.covered_negative.value) >= coverage - 1e-9


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(-6, 6)), min_size=1, max_size=60),
    st.sampled_from([1, 2, 5, 8, 9]),
)
def test_sets_are_those_of_conformal_p_values(cases, tenths) -> None:
    """Vovk's definition: a class is in the set where (1 + as strange or stranger) / (n + 1)
    exceeds 1 - coverage; in whole numbers, so that nothing is rounded."""
    labels = np.array([True, False, *(label for label, _ in cases)])
    scores = np.array([0.0, 0.0, *(float(score) for _, score in cases)])
    new = np.arange(-7.0, 8.0)
    held = fit_conformal(labels, scores, tenths / 10).predict(new)
    for column, strangeness, at in ((0, scores[~labels], new), (1, -scores[labels], -new)):
        stranger = 1 + (strangeness[None] >= at[:, None]).sum(axis=1)
        expected = 10 * stranger > (10 - tenths) * (strangeness.size + 1)
        assert held[:, column].tolist() == expected.tolist()


def test_shares_by_hand_and_their_ends_by_scipy() -> None:
    sets = ConformalSets(0.3, 0.6, 0.9, 20, 20)  # both between 0.3 and 0.6
    scores = np.array([0.1, 0.2, 0.4, 0.5, 0.8, 0.9, 0.1, 0.7])
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 0])
    found = evaluate_conformal(sets, labels, scores)
    assert found.covered.value == 6 / 8
    assert found.covered_positive is not None
    assert found.covered_negative is not None
    assert (found.covered_positive.value, found.covered_negative.value) == (3 / 4, 3 / 4)
    assert (found.one_class.value, found.both_classes.value) == (6 / 8, 2 / 8)
    assert found.no_class.value == 0
    assert found.right_of_one_class is not None
    assert found.right_of_one_class.value == 4 / 6
    assert found.mean_size == 10 / 8
    ends = binomtest(6, 8).proportion_ci(method="wilson")
    assert (found.covered.low, found.covered.high) == pytest.approx(tuple(ends), abs=1e-9)


def test_a_better_model_pays_with_smaller_sets() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], [300, 600])
    sizes = []
    for separation in (0.5, 2.0, 3.5):
        scores, new = rng.normal(size=(2, 900)) + separation * labels
        found = evaluate_conformal(fit_conformal(labels, scores, 0.9), labels, new)
        assert found.covered.value == pytest.approx(0.9, abs=0.04)
        sizes.append(found.mean_size)
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] < 1  # some sets are empty: the model is better than what was asked


def test_of_absent_cases_there_is_no_share() -> None:
    sets = ConformalSets(0.0, 1.0, 0.9, 9, 9)
    found = evaluate_conformal(sets, np.zeros(3, int), np.full(3, 0.5))
    assert found.covered_positive is None
    assert found.right_of_one_class is None
    assert found.both_classes.value == 1


def test_errors_are_sentences() -> None:
    labels, scores = np.array([0, 1]), np.arange(2.0)
    with pytest.raises(InputError, match=r"give 0\.9 for 90 %"):
        fit_conformal(labels, scores, 90)
    with pytest.raises(InputError, match="no prediction set"):
        fit_conformal(labels, scores).predict(np.array([np.nan]))
    with pytest.raises(InputError, match="2 positive and 0 negative"):
        fit_conformal(np.ones(2, int), scores)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_of_one_member_cross_conformal_sets_are_split_conformal(coverage: float) -> None:
    rng = np.random.default_rng(3)
    labels, scores = np.arange(58) % 2, rng.normal(size=58).round(1)  # with ties
    new = rng.normal(size=200).round(1)
    found = cross_conformal(labels, scores, np.zeros(58, dtype=int), new[None], coverage)
    np.testing.assert_array_equal(found, fit_conformal(labels, scores, coverage).predict(new))


def test_each_member_compares_with_the_cases_that_it_left_out() -> None:
    """Nine cases of a class each; the second member's scores lie ten higher."""
    labels, members = np.repeat([0, 1, 0, 1], [5, 5, 4, 4]), np.repeat([0, 1], [10, 8])
    scores = np.concatenate([np.zeros(5), np.ones(5), np.zeros(4) + 10, np.ones(4) + 10])
    new = np.array([[0.0, 1, 0.5, -1], [10.0, 11, 10.5, 9]])
    found = cross_conformal(labels, scores, members, new, 0.8)
    assert found.tolist() == [[True, False], [False, True], [False, False], [True, False]]
