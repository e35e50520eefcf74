from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort
from neonet3d.errors import InputError
from neonet3d.report.cases import read_pairs, read_scans
from neonet3d.study.results import StudyResults


def test_each_case_comes_from_the_fold_that_held_it_out(
    finished_run: Path, results: StudyResults
) -> None:
    crops = Cohort.open(finished_run / "crops")
    for pair in read_pairs(finished_run, crops, results):
        name = results.cases[pair.number - 1]
        assert pair.outcome == results.outcomes[pair.number - 1]
        source = pair.synthetic.image.source
        assert source is not None
        assert source.name == f"{name}_0000.nii.gz"
        assert source.parents[2].name == f"fold-{results.folds[pair.number - 1]}"
        assert np.array_equal(pair.real.mask.data, pair.synthetic.mask.data)


def test_numbers_are_rows_of_the_cohort_whatever_the_order_of_the_results(
    finished_run: Path, results: StudyResults
) -> None:
    order = [5, 3, 1, 0, 2, 4]
    shuffled = results.model_copy(
        update={
            key: tuple(getattr(results, key)[i] for i in order)
            for key in ("cases", "folds", "outcomes")
        }
    )
    crops = Cohort.open(finished_run / "crops")
    straight, turned = (read_pairs(finished_run, crops, r) for r in (results, shuffled))
    assert [pair.number for pair in straight] == [pair.number for pair in turned]
    assert [pair.outcome for pair in straight] == [pair.outcome for pair in turned]


def test_what_is_missing_is_named(
    finished_run: Path, results: StudyResults, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    crops = Cohort.open(run / "crops")
    cohort = Cohort.open(finished_run.parent / "cohort")
    with pytest.raises(InputError, match=r"smith-0 is in results\.json but not in"):
        read_pairs(run, crops.subset(crops.cases[1:]), results)
    shutil.rmtree(run / "fold-1" / "masks")
    with pytest.raises(InputError, match=r"smith-\d: NeoSeg's mask .* is missing"):
        read_scans(run, cohort, results)
    shutil.rmtree(run / "fold-0" / "pairs")
    with pytest.raises(InputError, match="There is no folder"):
        read_pairs(run, crops, results)


def test_a_mask_on_another_grid_is_refused(
    finished_run: Path, results: StudyResults, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    crops = Cohort.open(run / "crops")
    for name, fold in zip(results.cases, results.folds, strict=True):
        mask = crops[name].read_mask()
        assert mask is not None
        mask.write(run / f"fold-{fold}" / "masks" / f"{name}.nii.gz")
    with pytest.raises(InputError, match="Re-export the mask"):
        read_scans(run, Cohort.open(finished_run.parent / "cohort"), results)
