from __future__ import annotations

import math

import pytest

from neonet3d.metrics.interval import Interval
from neonet3d.report import wording

NAN = math.nan


def test_numbers_have_fixed_decimals_and_a_true_minus() -> None:
    assert wording.number(0.125, 1) == "0.1"
    assert wording.number(-0.5) == "−0.50"
    assert wording.number(NAN) == "–"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (-0.00012, "−0.000120"), (41.36, "41.4"), (1234.5, "1234"), (0, "0")],
)
def test_significant_digits_without_exponent(value: float, text: str) -> None:
    assert wording.significant(value) == text


def test_an_interval_without_ends_says_so() -> None:
    assert wording.interval_text(Interval(0.83, 0.71, 0.914, 9, None, "")) == "0.83 [0.71, 0.91]"
    assert wording.interval_text(Interval(0.83, NAN, NAN, 1, None, "")) == "0.83 [no interval]"


def test_small_p_values_are_not_zero() -> None:
    assert [wording.p_value(p) for p in (1e-9, 0.0312, 1.0)] == ["< 0.001", "0.031", "1.000"]
    assert wording.p_value(NAN) == "not defined"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.06, "4.1 s"), (59.97, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


def test_deviation_is_of_a_sample_and_of_what_is_defined() -> None:
    assert wording.mean_and_deviation((0.7, 0.8, 0.9, NAN)) == "0.80 ±\N{NO-BREAK SPACE}0.10"
    assert wording.mean_and_deviation((0.7,)) == "0.70"
    assert wording.mean_and_deviation((NAN,)) == "–"
