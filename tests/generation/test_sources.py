from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neonet3d.cohort.cohort import Cohort
from neonet3d.generation.sample import sample_cohort
from neonet3d.generation.sources import case_groups, drawn_on, mask_sources


def test_a_draw_knows_the_patient_whose_mask_it_has(trained: Any, tmp_path: Path) -> None:
    patients: Cohort = trained.fold.training
    drawn = sample_cohort(
        trained.generator, patients, tmp_path / "drawn", trained.config.sampler, seed=0, n=8
    )
    own = drawn_on(drawn, patients)
    names = [case.name for case in patients]
    for row, case in zip(own, drawn, strict=True):
        assert [names[i] for i in np.flatnonzero(row)] == [case.name.removesuffix("-2")]
    others = patients.subset(patients.cases[:2])
    of_real, of_synthetic = case_groups(drawn, others)
    known = dict(zip((case.name for case in drawn), of_synthetic, strict=True))
    assert known["patient_0"] == known["patient_0-2"] == of_real[0]
    assert known["patient_3"] not in of_real
    assert len(set(of_synthetic)) == 6


def test_real_cases_have_no_source(patients: Cohort) -> None:
    assert mask_sources(patients) == [""] * len(patients)
    assert not drawn_on(patients, patients).any()
    assert len(set(case_groups(patients, patients.subset([]))[1])) == len(patients)
