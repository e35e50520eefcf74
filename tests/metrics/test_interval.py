import numpy as np
import pytest

from neonet3d.metrics.interval import bootstrap_mean, normal_quantile, percentile_ends, wilson


def test_wilson_agrees_with_newcombe_1998_table_1() -> None:
    # Newcombe, Stat. Med. 17 (1998) 857, table I, method 3.
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611)}
    for (successes, n), ends in published.items():
        interval = wilson(successes, n)
        assert (interval.low, interval.high) == pytest.approx(ends, abs=5e-5)


def test_wilson_is_symmetric_and_closed_at_the_ends() -> None:
    few, many = wilson(3, 40), wilson(37, 40)
    assert few.low == pytest.approx(1 - many.high)
    assert wilson(0, 7).low == 0.0
    assert wilson(7, 7).high == 1.0
    assert wilson(7, 7).low < 1.0


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="1 or more trials"):
        wilson(successes, n)


def test_bootstrap_mean_leaves_nan_out_and_counts_the_rest() -> None:
    values = np.array([0.2, np.nan, 0.6, 0.7, np.nan, 0.9])
    interval = bootstrap_mean(values, seed=3)
    assert interval.n == 4
    assert interval.value == pytest.approx(0.6)
    assert interval == bootstrap_mean(values[~np.isnan(values)], seed=3)
    assert 0.2 < interval.low < 0.6 < interval.high < 0.9


def test_bootstrap_mean_has_the_length_of_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, size=400)
    interval = bootstrap_mean(values, seed=0, n_resamples=4000)
    expected = 2 * normal_quantile(0.95) * values.std() / 20
    assert interval.high - interval.low == pytest.approx(expected, rel=0.06)


def test_bootstrap_mean_of_one_or_no_value_has_no_interval() -> None:
    one = bootstrap_mean(np.array([0.5, np.nan]), seed=0)
    assert (one.value, one.n) == (0.5, 1)
    assert np.isnan([one.low, one.high]).all()
    none = bootstrap_mean(np.array([np.nan]), seed=0)
    assert none.n == 0
    assert np.isnan([none.value, none.low, none.high]).all()


def test_bootstrap_mean_of_a_constant_is_the_constant() -> None:
    interval = bootstrap_mean(np.full(5, 0.25), seed=0)
    assert (interval.value, interval.low, interval.high) == (0.25, 0.25, 0.25)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="Value 1 of 2 is infinite"):
        bootstrap_mean(np.array([1.0, np.inf]), seed=0)
    with pytest.raises(ValueError, match="n_resamples is 0"):
        bootstrap_mean(np.array([1.0, 2.0]), seed=0, n_resamples=0)
    with pytest.raises(ValueError, match=r"give 0\.95 for 95 %"):
        normal_quantile(95.0)


def test_percentile_ends_are_quantiles() -> None:
    assert percentile_ends(np.linspace(0, 1, 101), 0.9) == pytest.approx((0.05, 0.95))
