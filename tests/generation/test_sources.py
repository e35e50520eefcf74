from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.generation.balance import add_real_cases
from neonet3d.generation.sample import sample_cohort
from neonet3d.generation.sources import (
    SOURCE_COLUMN,
    SOURCE_DIGITS,
    case_groups,
    drawn_on,
    mask_sources,
    patients_of,
)


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


def test_a_copy_of_a_patient_is_that_patient(trained: Any, tmp_path: Path) -> None:
    """Images of whole numbers are written as float32 beside the draws, with other digests."""
    patients: Cohort = trained.fold.training
    writer = CohortWriter(tmp_path / "raw", patients.schema, outcome_name="pni", channel="MR")
    for case in patients:
        image, mask = case.read_with_mask()
        writer.add(case.name, image, mask, outcome=case.outcome, participant=f"p-{case.name}")
    raw = writer.finish()
    for case in raw:
        image = nib.nifti1.load(case.image_path)
        counts = np.rint(image.get_fdata() * 1000).astype(np.int16)
        nib.nifti1.save(nib.nifti1.Nifti1Image(counts, image.affine), case.image_path)
    joint = CohortWriter(tmp_path / "joint", patients.schema, outcome_name="pni", channel="MR")
    add_real_cases(joint, raw)
    sources = {case.name: case.digest()[:SOURCE_DIGITS] for case in raw}
    for case in raw:
        image, mask = case.read_with_mask()
        told = {"synthetic": "1", SOURCE_COLUMN: sources[case.name]}
        joint.add(f"drawn_{case.name}", image, mask, outcome=1, extra=told)
    made = joint.finish()
    assert made.cases[0].digest()[:SOURCE_DIGITS] != sources[made.cases[0].name]
    names = [case.name.removeprefix("drawn_") for case in made]
    assert patients_of(made) == [f"p-{name}" for name in names]
    real = made.subset(case for case in made if not case.synthetic)
    drawn = made.subset(case for case in made if case.synthetic)
    assert (drawn_on(drawn, real) == np.eye(len(real), dtype=bool)).all()
    of_real, of_drawn = case_groups(drawn, real)
    assert of_real.tolist() == of_drawn.tolist()


def test_real_cases_have_no_source(patients: Cohort) -> None:
    assert mask_sources(patients) == [""] * len(patients)
    assert not drawn_on(patients, patients).any()
    assert len(set(case_groups(patients, patients.subset([]))[1])) == len(patients)
