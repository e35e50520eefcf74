import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from neonet3d.errors import InputError
from neonet3d.metrics.discrimination import delong
from neonet3d.metrics.subgroups import AT_LEAST, subgroup_aucs, tercile_groups


def test_each_group_has_the_auc_of_its_own_cases() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([1, 0], [40, 80]))
    scores = labels + rng.normal(size=120)
    centres = np.array(["north", "south", "south"])[rng.integers(3, size=120)]
    rows = subgroup_aucs(labels, scores, list(centres))
    assert [row.name for row in rows] == list(dict.fromkeys(centres))
    assert sum(row.n for row in rows) == 120
    for row in rows:
        inside = centres == row.name
        assert row.auc == delong(labels[inside], scores[inside])
        assert row.auc is not None
        expected = roc_auc_score(labels[inside], scores[inside])
        assert row.auc.value == pytest.approx(expected, abs=1e-12)
        assert (row.n, row.n_positive) == (inside.sum(), labels[inside].sum())


def test_a_small_group_is_listed_with_its_counts_and_without_a_figure() -> None:
    labels = np.repeat([1, 0, 1, 0], [5, 5, 4, 30])
    groups = ["enough"] * 10 + ["too few positive"] * 34
    rows = subgroup_aucs(labels, np.arange(44.0), groups)
    assert rows[0].auc is not None
    assert (rows[1].name, rows[1].n, rows[1].n_positive) == ("too few positive", 34, 4)
    assert rows[1].auc is None


def test_below_that_size_the_interval_is_too_short() -> None:
    """What AT_LEAST rests on: share of DeLong intervals that hold a true AUC of 0.7."""
    rng = np.random.default_rng(0)
    coverage = {}
    for n_positive in (2, AT_LEAST):
        labels = np.repeat([1, 0], [n_positive, 40])
        found = [
            delong(labels, rng.normal(size=labels.size) + np.sqrt(2) * norm.ppf(0.7) * labels)
            for _ in range(600)
        ]
        coverage[n_positive] = np.mean([interval.low <= 0.7 <= interval.high for interval in found])
    assert coverage[2] < 0.85
    assert coverage[AT_LEAST] > 0.88


def test_a_shift_between_groups_does_not_show_within_them() -> None:
    labels = np.tile([0, 1], 20)
    scores = labels + np.repeat([0.0, 100.0], 20)
    rows = subgroup_aucs(labels, scores, ["a"] * 20 + ["b"] * 20)
    assert [row.auc.value for row in rows if row.auc] == [1, 1]


def test_thirds_have_a_third_each_and_their_limits() -> None:
    volumes = np.random.default_rng(0).permutation(np.arange(1.0, 31.0))
    names = tercile_groups(volumes, "ml")
    assert {name: names.count(name) for name in names} == {
        "lowest third (1 to 10 ml)": 10,
        "middle third (11 to 20 ml)": 10,
        "highest third (21 to 30 ml)": 10,
    }
    assert names[int(volumes.argmin())] == "lowest third (1 to 10 ml)"


def test_equal_values_stay_together_and_unknown_ones_apart() -> None:
    names = tercile_groups(np.array([2.0, 2, 2, 2, 2, 9, np.nan]), "cm")
    assert set(names[:5]) == {"lowest third (2 to 2 cm)"}
    assert names[5:] == ("highest third (9 to 9 cm)", "unknown")


def test_close_values_do_not_merge_into_one_name() -> None:
    assert len(set(tercile_groups(np.array([100.01, 100.02, 100.03]), "ml"))) == 3


def test_errors_are_sentences() -> None:
    with pytest.raises(InputError, match="2 cases but 1 groups"):
        subgroup_aucs(np.array([0, 1]), np.arange(2.0), ["a"])
    for values in (np.array([1.0, np.inf]), np.array([np.nan])):
        with pytest.raises(InputError, match="not known as nan"):
            tercile_groups(values, "ml")
