from __future__ import annotations

import pytest

from neonet3d.generation.latents import n_views
from neonet3d.generation.train_refiner import PAIRS, pair_rows


@pytest.mark.parametrize("n", [1, 2, 30, 44, 48, 96, 97, 102, 128, 400])
def test_pairs_are_of_as_many_cases_and_positions_as_can_be(n: int) -> None:
    views = n_views(n)
    rows = pair_rows(n, views)
    assert len(rows) == len(rows.unique()) == min(PAIRS, n * views)
    assert 0 <= int(rows.min()) <= int(rows.max()) < n * views
    assert len((rows % n).unique()) == min(n, PAIRS)
    assert len((rows // n).unique()) == views
