from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from neonet3d.metrics.power import plan_study

ASKED = ("study", "plan", "--n", 128, "--prevalence", 0.34, "--auc", 0.8)


def test_a_plan_is_sentences(run: Callable[..., Any]) -> None:
    ended = run(*ASKED, "--difference", 0.1, "--correlation", 0.5)
    assert (ended.status, ended.stderr) == (0, "")
    plan = plan_study(128, 0.34, 0.8, difference=0.1, correlation=0.5)
    assert plan.comparison is not None
    for part in (
        "With 128 patients, 44 of them positive, an AUC of 0.8",
        f"about {plan.auc.low:.2f} to {plan.auc.high:.2f}",
        "If a rival's AUC is 0.7",
        f"with a probability of {100 * plan.comparison.power:.0f} %",
        f"about {plan.comparison.n_needed} patients",
        f"a difference of about {plan.smallest_difference:.2f}",
    ):
        assert part in ended.stdout
    assert all(line.endswith(".") for line in ended.stdout.splitlines())


def test_without_a_rival_it_says_what_can_be_seen(run: Callable[..., Any]) -> None:
    ended = run(*ASKED)
    assert "rival" not in ended.stdout
    assert "128 patients show a difference of about" in ended.stdout


def test_json_is_the_plan(run: Callable[..., Any]) -> None:
    found = run(*ASKED, "--difference", 0.1, "--json").json()
    plan = plan_study(128, 0.34, 0.8, difference=0.1)
    assert plan.comparison is not None
    assert found["auc"]["low"] == plan.auc.low
    assert (found["auc"]["n"], found["auc"]["n_positive"]) == (128, 44)
    assert found["comparison"]["power"] == plan.comparison.power
    assert found["smallest_difference"] == plan.smallest_difference
    assert found["prevalence"] == 0.34
    assert run(*ASKED, "--json").json()["comparison"] is None


def test_what_no_study_can_show_is_said(run: Callable[..., Any]) -> None:
    ended = run("study", "plan", "--n", 40, "--prevalence", 0.3, "--auc", 0.6)
    assert "Not even a rival that guesses" in ended.stdout
    ended = run(*ASKED, "--difference", 0.00001)
    assert "no cohort is large enough" in ended.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--n", 128, "--prevalence", 34, "--auc", 0.8), "give 0.34 for 34 %"),
        (("--n", 128, "--prevalence", 0.34, "--auc", 80), "AUC to plan for is 80"),
        (("--n", -5, "--prevalence", 0.34, "--auc", 0.8), "Plan more patients"),
        (("--n", 128, "--prevalence", 0.34), "Missing option '--auc'"),
        ((*ASKED[2:], "--difference", 0.5), "has an AUC of 0.3"),
        ((*ASKED[2:], "--difference", "nan"), "Give a difference above 0"),
        ((*ASKED[2:], "--correlation", 2), "The correlation is 2"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    options: tuple[object, ...], said: str, run: Callable[..., Any]
) -> None:
    ended = run("study", "plan", *options)
    assert (ended.status, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
