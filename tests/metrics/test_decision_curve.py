import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from neonet3d.errors import InputError
from neonet3d.metrics.decision_curve import decision_curve


@pytest.fixture
def cases() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    probabilities = rng.beta(1, 2, size=200)
    return (rng.random(200) < probabilities).astype(int), probabilities


def test_it_is_the_formula_of_the_paper_on_scikit_learns_counts(
    cases: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, probabilities = cases
    thresholds = np.linspace(0.01, 0.99, 50)
    curve = decision_curve(labels, probabilities, thresholds, seed=0)
    for k, threshold in enumerate(thresholds):
        _, fp, _, tp = confusion_matrix(labels, probabilities >= threshold).ravel()
        expected = tp / 200 - fp / 200 * threshold / (1 - threshold)
        assert curve.model[k] == pytest.approx(expected, abs=1e-12)
        odds = threshold / (1 - threshold)
        all_ = labels.mean() - (1 - labels.mean()) * odds
        assert curve.treat_all[k] == pytest.approx(all_, abs=1e-12)
    assert curve.gain == pytest.approx(curve.model - np.maximum(curve.treat_all, 0), abs=1e-12)
    assert (curve.n, curve.n_positive) == (200, int(labels.sum()))


def test_counts_by_hand() -> None:
    """1000 patients, 80 of the 100 positive treated and 180 of the negative, at 1 in 10."""
    labels = np.repeat([1, 1, 0, 0], [80, 20, 180, 720])
    curve = decision_curve(
        labels, np.repeat([0.9, 0.0, 0.9, 0.0], [80, 20, 180, 720]), np.array([0.1]), seed=0
    )
    assert curve.model[0] == pytest.approx(0.08 - 0.18 / 9)
    assert curve.treat_all[0] == pytest.approx(0, abs=1e-15)  # at the prevalence, as it must


def test_at_a_threshold_below_every_probability_the_model_treats_all(
    cases: tuple[np.ndarray, np.ndarray],
) -> None:
    labels, probabilities = cases
    curve = decision_curve(labels, 0.2 + 0.6 * probabilities, np.array([0.1, 0.9]), seed=0)
    assert curve.model[0] == pytest.approx(curve.treat_all[0], abs=1e-15)
    assert curve.model[1] == 0
    assert (curve.gain[0], curve.gain_low[0], curve.gain_high[0]) == (0, 0, 0)


def test_a_calibrated_model_never_loses_and_a_miscalibrated_one_may() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.beta(1, 2, size=20000)
    labels = (rng.random(20000) < probabilities).astype(int)
    thresholds = np.linspace(0.1, 0.8, 8)
    good = decision_curve(labels, probabilities, thresholds, seed=0, n_resamples=50)
    assert (good.gain > -0.002).all()
    bad = decision_curve(labels, np.sqrt(probabilities), thresholds, seed=0, n_resamples=50)
    assert (bad.gain[4:] < -0.01).any()


def test_the_interval_covers_the_true_net_benefit() -> None:
    """Uniform probabilities that are true: at 0.3 it is E[(p - (1 - p) 3 / 7); p >= 0.3]."""
    rng = np.random.default_rng(1)
    truth = (1 - 0.3**2) / 2 - 3 / 7 * (1 - 0.3) ** 2 / 2
    covered = 0
    for seed in range(200):
        p = rng.uniform(size=120)
        labels = (rng.random(120) < p).astype(int)
        curve = decision_curve(labels, p, np.array([0.3]), seed, n_resamples=500)
        covered += bool(curve.model_low[0] <= truth <= curve.model_high[0])
    assert 0.90 < covered / 200 < 0.985


def test_errors_are_sentences(cases: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(InputError, match="strictly between 0 and 1"):
        decision_curve(*cases, np.array([0.0, 0.5]), seed=0)
    with pytest.raises(InputError, match="not logits"):
        decision_curve(cases[0], 5 * cases[1], np.array([0.5]), seed=0)
