"""A fold on disk and a card for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.config import LoopConfig
from neonet3d.engine.artefact import ArtefactCard, new_card


@pytest.fixture
def loop_config() -> LoopConfig:
    return LoopConfig(steps=12, batch_size=4, learning_rate=0.01, weight_decay=0.01, ema_decay=0.9)


@pytest.fixture
def fold(make_cohort: Callable[..., Cohort]) -> Fold:
    cohort = make_cohort([0, 1, 0, 1])
    return Fold("fold-2", cohort.subset(cohort.cases[:3]), cohort.subset(cohort.cases[3:]))


@pytest.fixture
def make_card(fold: Fold, loop_config: LoopConfig) -> Callable[..., ArtefactCard]:
    def make(kind: str = "Thing", *, seed: int = 4, **parents: ArtefactCard) -> ArtefactCard:
        return new_card(
            kind,
            fold=fold,
            config=loop_config,
            seed=seed,
            normaliser=IntensityNormaliser(reference="liver_median", ceiling=2.5, liver_value=1),
            grid=Grid((24, 16, 8), (1.0, 1.0, 2.0)),
            parents=parents,
        )

    return make
