import numpy as np
import pytest

from neonet3d.errors import InputError
from neonet3d.metrics.probability import Binning, bin_probabilities, check_probabilities


def test_quantiles_cut_into_bins_of_the_same_size() -> None:
    probabilities = np.random.default_rng(0).uniform(size=120)
    bins = bin_probabilities(probabilities, 10, "equal-mass")
    assert np.bincount(bins).tolist() == [12] * 10
    assert (np.diff(bins[np.argsort(probabilities)]) >= 0).all()


def test_equal_probabilities_stay_together_and_empty_bins_do_not_count() -> None:
    probabilities = np.repeat([0.1, 0.1, 0.9], 20)
    for binning in ("equal-mass", "equal-width"):
        chosen: Binning = binning
        assert np.unique(bin_probabilities(probabilities, 10, chosen)).tolist() == [0, 1]


def test_a_case_on_a_cut_belongs_below() -> None:
    bins = bin_probabilities(np.array([0.0, 0.5, 0.51, 1.0]), 2, "equal-width")
    assert bins.tolist() == [0, 0, 1, 1]


def test_errors_are_sentences() -> None:
    labels = np.array([0, 1])
    with pytest.raises(InputError, match=r"case 1 is 1\.5.*not logits"):
        check_probabilities(labels, np.array([0.5, 1.5]))
    with pytest.raises(InputError, match="case 0 is nan"):
        check_probabilities(labels, np.array([np.nan, 0.5]))
    with pytest.raises(InputError, match="no case at all"):
        check_probabilities(np.zeros(0, int), np.zeros(0))
    with pytest.raises(InputError, match="n_bins is 0"):
        bin_probabilities(np.array([0.5]), 0, "equal-mass")
