"""The label's prevalence, its ceiling, its signs, and where the signs are put."""

import numpy as np
import pytest
from scipy.stats import rankdata

from neonet3d.cohort.phantom import invasion
from neonet3d.cohort.phantom.vessels import VesselTree, stem


@pytest.fixture(scope="module")
def cohort() -> list[invasion.Invasion]:
    return [invasion.draw_invasion(np.random.default_rng((seed, 0))) for seed in range(5000)]


def line(n: int) -> VesselTree:
    return stem(np.stack([np.zeros(n), np.zeros(n), 3.0 * np.arange(n)], axis=1))


def test_prevalence(cohort):
    assert np.mean([case.pni for case in cohort]) == pytest.approx(0.34, abs=0.02)


def test_probability_is_calibrated_and_is_the_ceiling(cohort):
    label = np.array([case.pni for case in cohort])
    probability = np.array([case.probability for case in cohort])
    assert probability.mean() == pytest.approx(label.mean(), abs=0.015)
    ranks, positives = rankdata(probability), label.sum()
    auc = (ranks[label == 1].sum() - positives * (positives + 1) / 2) / (
        positives * (len(label) - positives)
    )
    assert auc == pytest.approx(0.90, abs=0.015)


def test_signs_correlate_with_severity_as_stated(cohort):
    severity = [case.severity for case in cohort]
    for name, rho in invasion.CORRELATION.items():
        sign = np.array([getattr(case, name) for case in cohort])
        assert np.corrcoef(severity, sign)[0, 1] == pytest.approx(rho, abs=0.04)
        assert sign.std() == pytest.approx(1, abs=0.04)


def test_probability_of_a_known_severity():
    assert invasion.pni_probability(1.28 / 2.6) == pytest.approx(0.5)
    assert invasion.pni_probability(8.0) > 0.999


def test_strong_signs_show_strongly():
    mild = invasion.Invasion(-2.0, 0.0, 0, -2.0, -2.0, -2.0, 0.0, 0.0)
    severe = invasion.Invasion(2.0, 1.0, 1, 2.0, 2.0, 2.0, 0.0, 0.0)
    for seed in range(20):
        low = invasion.draw_spread(np.random.default_rng(seed), mild)
        high = invasion.draw_spread(np.random.default_rng(seed), severe)
        assert low.cuff_peak < 0.05 < 0.9 < high.cuff_peak <= 0.95
        assert 0.6 <= low.margin_mm < 1 < 5 < high.margin_mm <= 6
        assert high.cuff_length_mm > low.cuff_length_mm


def test_cuff_fades_along_the_tree():
    spread = invasion.Spread(0.95, 20.0, 5.0, 1.0, 0.0)
    cuffs = [
        invasion.draw_cuff(np.random.default_rng(seed), line(40), np.array([0]), spread)
        for seed in range(30)
    ]
    np.testing.assert_allclose(cuffs[0].along_mm, 3.0 * np.arange(40), atol=1e-6)
    mean = np.mean([cuff.amplitude for cuff in cuffs], axis=0)
    assert mean[:4].mean() > 0.3
    assert mean[-10:].mean() < 0.15
    assert all(np.all((cuff.amplitude >= 0) & (cuff.amplitude <= 1)) for cuff in cuffs)


def test_a_tumour_always_has_a_source_of_spread():
    np.testing.assert_array_equal(invasion.touching(np.array([9.0, 2.0, -1.0])), [1, 2])
    np.testing.assert_array_equal(invasion.touching(np.array([9.0, 7.0, 8.0])), [1])


def test_ducts_run_beside_the_vein_behind_the_tumour_and_taper():
    tree = line(40)
    radii = np.full(40, 2.0)
    along = np.abs(3.0 * (np.arange(40) - 10))
    centres, duct = invasion.duct_course(
        np.random.default_rng(0), tree, radii, np.array([10]), along, 3.0
    )
    np.testing.assert_allclose(np.hypot(centres[:, 0], centres[:, 1]), 2.0 + duct, atol=1e-6)
    assert centres[:, 2].min() > 30
    assert centres[:, 2].max() <= 30 + 40
    assert 1.5 <= duct.min() < duct.max() <= 3.0


def test_no_dilation_no_ducts():
    centres, duct = invasion.duct_course(
        np.random.default_rng(0), line(5), np.ones(5), np.array([1]), np.zeros(5), 0.0
    )
    assert centres.shape == (0, 3)
    assert duct.shape == (0,)
