import numpy as np
import pytest

from neonet3d.errors import InputError
from neonet3d.metrics.clustered import bootstrap_patients, wilson_patients
from neonet3d.metrics.interval import bootstrap_mean, wilson


def names(*counts: int) -> list[str]:
    """So many scans of each patient; the first patient is the last of the alphabet."""
    return [f"patient {-i:05d}" for i, count in enumerate(counts) for _ in range(count)]


def test_with_one_scan_each_it_is_the_plain_bootstrap() -> None:
    values = np.random.default_rng(0).uniform(size=30)
    values[4] = np.nan
    mean = bootstrap_patients(values, names(*[1] * 30), 3, "mean")
    plain = bootstrap_mean(values, 3)
    assert mean.n == plain.n == 29
    assert mean.value == pytest.approx(plain.value)
    assert (mean.low, mean.high) == pytest.approx((plain.low, plain.high))


def test_scans_of_one_patient_add_nothing() -> None:
    """Every scan taken five times: the same interval, where the plain bootstrap's is shorter."""
    values = np.random.default_rng(0).uniform(size=20)
    once = bootstrap_patients(values, names(*[1] * 20), 3, "mean")
    often = bootstrap_patients(values.repeat(5), names(*[5] * 20), 3, "mean")
    assert often.n == 20
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    naive = bootstrap_mean(values.repeat(5), 3)
    assert often.high - often.low > 2 * (naive.high - naive.low)


def test_every_scan_counts_alike() -> None:
    values = np.array([0.0, 1.0, 1.0, 1.0])
    assert bootstrap_patients(values, names(1, 3), 0, "mean").value == 0.75
    assert bootstrap_patients(values, names(1, 3), 0, "median").value == 1


def test_the_median_counts_infinity_and_leaves_out_nan() -> None:
    values = np.array([3.0, np.inf, 1.0, 2.0, np.nan, 4.0])
    median = bootstrap_patients(values, names(*[1] * 6), 0, "median")
    assert (median.value, median.n) == (3, 5)
    assert median.low < 3
    assert median.high == np.inf
    even = bootstrap_patients(np.array([1.0, 2.0, 4.0, np.inf]), names(1, 1, 1, 1), 0, "median")
    assert even.value == 3
    lost = bootstrap_patients(np.array([1.0, np.inf, np.inf]), names(1, 1, 1), 0, "median")
    assert lost.value == np.inf


def test_of_one_patient_or_none_there_is_no_interval() -> None:
    one = bootstrap_patients(np.array([0.5, 0.7]), names(2), 0, "mean")
    assert one.value == pytest.approx(0.6)
    assert np.isnan([one.low, one.high]).all()
    for statistic in ("mean", "median"):
        nothing = bootstrap_patients(np.array([np.nan]), ["a"], 0, statistic)
        assert np.isnan(nothing.value)
        assert nothing.n == 0


def test_errors_are_sentences() -> None:
    with pytest.raises(InputError, match="Give one for each"):
        bootstrap_patients(np.zeros(3), ["a"], 0, "mean")
    with pytest.raises(InputError, match="Ask for the median"):
        bootstrap_patients(np.array([1, np.inf]), ["a", "b"], 0, "mean")


def test_lesions_of_different_patients_give_wilsons_interval() -> None:
    share = wilson_patients(np.array([1, 0, 1, 1]), np.array([1, 1, 1, 1]))
    plain = wilson(3, 4)
    assert share is not None
    assert (share.value, share.n, share.n_positive) == (0.75, 4, 3)
    # Four patients: the variance between them is 4 / 3 of the binomial one.
    assert share.low < plain.low
    assert share.high > plain.high


def test_lesions_of_one_patient_add_little() -> None:
    """All found or none, ten lesions in each of four patients: as four trials, not forty."""
    found, lesions = np.array([10, 10, 10, 0]), np.full(4, 10)
    clustered = wilson_patients(found, lesions)
    single = wilson_patients(np.array([1, 1, 1, 0]), np.ones(4, int))
    assert clustered is not None
    assert single is not None
    assert (clustered.low, clustered.high) == pytest.approx((single.low, single.high))
    everything = wilson_patients(lesions, lesions)
    assert everything is not None
    assert (everything.low, everything.high) == pytest.approx((wilson(4, 4).low, 1))


def test_without_lesions_there_is_no_share() -> None:
    assert wilson_patients(np.array([0, 0]), np.array([0, 0])) is None
