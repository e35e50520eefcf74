import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import make_moons
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.svm import SVC

from neonet3d.errors import InputError
from neonet3d.metrics.cross_validation import (
    corrected_t,
    corrected_t_test,
    cross_validated_auc,
)
from neonet3d.metrics.discrimination import delong


def test_the_published_example_of_scikit_learn() -> None:
    """'Statistical comparison of models using grid search': t = 0.750, one-sided p = 0.227."""
    x, y = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel, random_state=0), x, y, scoring="roc_auc", cv=folds)
        for kernel in ("rbf", "linear")
    )
    found = corrected_t_test(rbf, linear, n_train=90, n_test=10)
    assert found.p_value / 2 == pytest.approx(0.227, abs=5e-4)
    t = stats.t.isf(found.p_value / 2, 99)
    assert t == pytest.approx(0.750, abs=5e-4)
    assert found.difference == pytest.approx(np.mean(rbf - linear), abs=1e-12)
    half = stats.t.ppf(0.975, 99) * found.difference / t
    assert found.interval.high - found.difference == pytest.approx(half, rel=1e-9)
    swapped = corrected_t_test(linear, rbf, n_train=90, n_test=10)
    assert (swapped.difference, swapped.p_value) == pytest.approx(
        (-found.difference, found.p_value), abs=1e-12
    )


@pytest.mark.parametrize(("repeats", "factor"), [(1, 1.5), (10, 3.67)])
def test_the_correction_lengthens_five_folds(repeats: int, factor: float) -> None:
    values = np.random.default_rng(0).normal(size=5 * repeats)
    found = corrected_t(values, n_train=80, n_test=20)
    plain = stats.t.interval(0.95, values.size - 1, values.mean(), stats.sem(values))
    assert (found.high - found.low) / (plain[1] - plain[0]) == pytest.approx(factor, abs=0.005)


def test_without_test_cases_in_proportion_it_is_the_plain_t_interval() -> None:
    values = np.random.default_rng(1).normal(size=12)
    found = corrected_t(values, n_train=1e15, n_test=1)
    plain = stats.t.interval(0.95, 11, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(plain, abs=1e-9)


def test_a_repeated_split_of_noise_is_not_significant_too_often() -> None:
    """Accuracies of a coin on random tenths of 100 cases: the plain t-test would fail here."""
    rng = np.random.default_rng(0)
    corrected, plain = [], []
    for _ in range(200):
        right_a, right_b = rng.random((2, 100)) < 0.6
        gains = right_a.astype(float) - right_b
        folds = np.concatenate([rng.permutation(100).reshape(10, 10) for _ in range(10)])
        a, b = gains[folds].mean(1), np.zeros(100)
        corrected.append(corrected_t_test(a, b, 90, 10).p_value < 0.05)
        plain.append(stats.ttest_1samp(a, 0).pvalue < 0.05)
    assert np.mean(corrected) < 0.1
    assert np.mean(plain) > 0.3


def test_equal_models_have_p_one_and_a_constant_gain_has_none() -> None:
    values = np.array([0.7, 0.8, 0.75])
    same = corrected_t_test(values, values, 80, 20)
    assert (same.difference, same.p_value, same.interval.low, same.interval.high) == (0, 1, 0, 0)
    constant = corrected_t_test(values + 0.1, values, 80, 20)
    assert constant.difference == pytest.approx(0.1)
    assert np.isnan([constant.p_value, constant.interval.low]).all()
    assert "not defined" in constant.interval.method
    assert np.isnan(corrected_t(np.ones(5), 80, 20).high)  # five perfect folds are no certainty


@pytest.fixture
def repeated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    labels = (np.arange(60) < 20).astype(int)
    scores = labels + rng.normal(size=60) + 0.3 * rng.normal(size=(3, 60))
    folds = np.stack([rng.permutation(60) % 5 for _ in range(3)])
    return labels, scores, folds


def test_pooled_and_fold_aucs_are_those_of_scikit_learn(
    repeated: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, scores, folds = repeated
    found = cross_validated_auc(labels, scores, folds)
    pooled = [roc_auc_score(labels, row) for row in scores]
    assert found.repeat_aucs == pytest.approx(pooled, abs=1e-12)
    assert found.pooled.value == pytest.approx(np.mean(pooled), abs=1e-12)
    by_fold = [
        [roc_auc_score(labels[of == k], row[of == k]) for k in range(5)]
        for row, of in zip(scores, folds, strict=True)
    ]
    assert np.array(found.fold_aucs) == pytest.approx(np.array(by_fold), abs=1e-12)
    by_hand = corrected_t(np.ravel(by_fold), 48, 12)
    assert found.fold_mean.value == pytest.approx(by_hand.value, abs=1e-12)
    assert found.fold_mean.low == pytest.approx(by_hand.low, abs=1e-12)
    assert found.fold_mean.high == min(by_hand.high, 1)
    assert (found.pooled.n, found.fold_mean.n, found.n_folds_without) == (60, 60, 0)


def test_repeating_the_same_predictions_adds_nothing(
    repeated: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, scores, folds = repeated
    once = cross_validated_auc(labels, scores[:1], folds[:1])
    thrice = cross_validated_auc(labels, scores[[0, 0, 0]], folds[[0, 0, 0]])
    single = delong(labels, scores[0])
    for found in (once, thrice):
        assert (found.pooled.low, found.pooled.high) == pytest.approx((single.low, single.high))


def test_folds_on_other_scales_lower_the_pooled_auc_alone() -> None:
    """What the two figures are for: every fold ranks perfectly, but their scores do not compare."""
    labels = np.tile([0, 1], 20)
    folds = np.arange(40)[None] // 8
    scores = labels[None] + 3.0 * folds + np.random.default_rng(0).uniform(0, 0.1, (1, 40))
    found = cross_validated_auc(labels, scores, folds)
    assert found.fold_mean.value == 1
    assert found.pooled.value < 0.65


def test_a_fold_of_one_class_has_no_auc_and_is_counted() -> None:
    labels = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0])
    folds = np.repeat([0, 1, 2], 3)[None]
    found = cross_validated_auc(labels, np.arange(9.0)[None], folds)
    assert found.n_folds_without == 2
    assert found.fold_mean.value == 0
    assert np.isnan([found.fold_mean.low, found.fold_mean.high]).all()
    folds = np.array([[0, 0, 1, 1, 1, 1, 1, 1, 1]])
    nowhere = cross_validated_auc(labels, np.arange(9.0)[None], folds)
    assert np.isnan(nowhere.fold_mean.value)
    assert nowhere.pooled.value == 0


def test_errors_are_sentences() -> None:
    labels, scores = np.array([0, 0, 1, 1]), np.arange(4.0)
    with pytest.raises(InputError, match="a row for each repetition"):
        cross_validated_auc(labels, scores, np.array([0, 1, 0, 1]))
    with pytest.raises(InputError, match="All cases are in fold 7"):
        cross_validated_auc(labels, scores[None], np.full((1, 4), 7))
    with pytest.raises(InputError, match="one finite figure for each fold"):
        corrected_t(np.array([0.5, np.nan]), 80, 20)
    with pytest.raises(InputError, match="0 training and 20 test cases"):
        corrected_t(np.array([0.5, 0.6]), 0, 20)
    with pytest.raises(InputError, match="two folds or more"):
        corrected_t_test(np.array([0.5]), np.array([0.5]), 80, 20)
