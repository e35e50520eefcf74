from __future__ import annotations

import pytest
import torch

from neonet3d.generation.condition import N_SCALES, NULL_LABEL, Condition


def told(outcomes: torch.Tensor) -> Condition:
    return Condition.of(outcomes, torch.zeros(len(outcomes), N_SCALES))


def test_an_unknown_outcome_is_the_null_label() -> None:
    assert told(torch.tensor([0, 1, -1])).label.tolist() == [0, 1, NULL_LABEL]


def test_labels_are_hidden_at_random_and_numbers_stay() -> None:
    known = told(torch.tensor([0, 1, -1, 1]))
    assert known.with_labels_hidden(0.0).label.tolist() == [0, 1, NULL_LABEL, 1]
    assert known.with_labels_hidden(1.0).label.tolist() == [NULL_LABEL] * 4
    assert known.without_label().label.tolist() == [NULL_LABEL] * 4
    assert known.without_label().numbers is known.numbers
    torch.manual_seed(0)
    many = told(torch.ones(10_000, dtype=torch.long)).with_labels_hidden(0.3)
    assert float((many.label == NULL_LABEL).float().mean()) == pytest.approx(0.3, abs=0.02)
