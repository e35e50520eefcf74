from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema

Make = Callable[..., Cohort]


def test_what_was_written_is_read(make_cohort: Make) -> None:
    cohort = make_cohort(
        [0, 1, None], participants=["a", "b", "b"], splits=["train", "val", "test"]
    )
    assert Cohort.open(cohort.root) == cohort
    assert [case.name for case in cohort] == ["case_000", "case_001", "case_002"]
    assert [case.outcome for case in cohort] == [0, 1, None]
    assert [case.participant for case in cohort] == ["a", "b", "b"]
    assert [case.split for case in cohort] == ["train", "val", "test"]
    assert cohort.schema.names == ("background", "liver", "tumour")
    assert cohort.channel == "MR"
    image, mask = cohort["case_001"].read_with_mask()
    assert image.data.dtype == np.float32
    assert np.unique(mask.data).tolist() == [0, 1, 2]


def test_a_case_outside_the_subset_is_not_reachable(make_cohort: Make) -> None:
    cohort = make_cohort([0, 1, 0, 1])
    training = cohort.subset(case for case in cohort if case.name != "case_002")
    assert len(training) == 3
    assert "case_002" not in [case.name for case in training]
    with pytest.raises(KeyError, match="case_002 is not among these 3 cases"):
        training["case_002"]
    assert training.outcomes.tolist() == [0, 1, 1]
    # Nor does a subset of the subset bring it back.
    with pytest.raises(KeyError):
        training.subset(cohort)["case_002"]


def test_outcomes_that_are_missing_are_named(make_cohort: Make) -> None:
    cohort = make_cohort([0, None, 1, None])
    with pytest.raises(InputError, match=r"2 of 4 cases .* \(the first is case_001\)"):
        _ = cohort.outcomes
    unlabelled = Cohort(cohort.root, cohort.schema, None, cohort.cases)
    with pytest.raises(InputError, match="has no outcome to learn"):
        _ = unlabelled.outcomes


def test_a_mask_may_be_missing_until_it_is_needed(make_cohort: Make) -> None:
    cohort = make_cohort([0, 1], masks=False)
    assert cohort["case_000"].read()[1] is None
    with pytest.raises(InputError, match="case_000: there is no mask"):
        cohort["case_000"].read_with_mask()


def test_masks_from_elsewhere_bring_their_classes(make_cohort: Make) -> None:
    drawn, predicted = make_cohort([0]), make_cohort([0], name="predicted")
    path, bare = predicted["case_000"].mask_path, LabelSchema(("background",))
    assert path is not None
    without = replace(drawn, schema=bare, cases=(replace(drawn["case_000"], schema=bare),))
    overlaid = without.with_overlaid_masks({"case_000": path}, predicted.schema)
    _, mask = overlaid["case_000"].read_with_mask()
    assert overlaid.schema == predicted.schema
    assert mask.data.max() == 2


def test_masks_from_elsewhere_replace_all(make_cohort: Make) -> None:
    drawn, predicted = make_cohort([0, 1]), make_cohort([1, 0], name="predicted")
    path = predicted["case_000"].mask_path
    assert path is not None
    overlaid = drawn.with_overlaid_masks({"case_000": path}, drawn.schema)
    assert overlaid["case_000"].mask_path == path
    assert overlaid["case_001"].mask_path is None  # the drawn one must not leak in
    assert drawn["case_001"].mask_path is not None


def test_the_digest_sees_image_mask_and_outcome(make_cohort: Make) -> None:
    cohort = make_cohort([0, 1])
    case = cohort["case_000"]
    before = case.digest()
    assert before == Cohort.open(cohort.root)["case_000"].digest()
    assert case.mask_path is not None
    assert before != cohort["case_001"].digest()
    image, mask = case.read_with_mask()
    image.with_data(image.data + 1).write(case.image_path)
    changed_image = case.digest()
    mask.with_data(np.ones_like(mask.data)).write(case.mask_path)
    assert len({before, changed_image, case.digest()}) == 3


def test_the_digest_does_not_depend_on_the_compression(make_cohort: Make) -> None:
    case = make_cohort([0, 1])["case_000"]
    before, packed = case.digest(), case.image_path.read_bytes()
    again = gzip.compress(gzip.decompress(packed), compresslevel=9)
    assert again != packed
    case.image_path.write_bytes(again)
    assert case.digest() == before


def test_an_outcome_is_0_or_1(make_cohort: Make) -> None:
    cohort = make_cohort([0, 1])
    table = cohort.root / "participants.tsv"
    table.write_text(table.read_text().replace("\t1\n", "\tyes\n"))
    with pytest.raises(InputError, match="case_001: pni is 'yes', not 0 or 1"):
        Cohort.open(cohort.root)
    table.write_text(table.read_text().replace("\tyes\n", "\t1.0\n"))
    assert Cohort.open(cohort.root).outcomes.tolist() == [0, 1]


def test_a_folder_that_is_no_cohort_says_what_is_missing(make_cohort: Make) -> None:
    cohort = make_cohort([0, 1])
    with pytest.raises(InputError, match="There is no folder"):
        Cohort.open(cohort.root / "absent")
    cohort["case_001"].image_path.unlink()
    with pytest.raises(InputError, match=r"case_001 is listed .* but there is no"):
        Cohort.open(cohort.root)
    (cohort.root / "participants.tsv").unlink()
    with pytest.raises(InputError, match=r"holds no participants.tsv"):
        Cohort.open(cohort.root)


def test_a_half_written_cohort_does_not_open(make_cohort: Make) -> None:
    root = make_cohort([0]).root.parent / "half"
    writer = CohortWriter(root, LabelSchema(("background",)), outcome_name=None, channel="MR")
    writer.add("a", Volume(np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.eye(4)), None)
    with pytest.raises(InputError, match="is not a cohort"):
        Cohort.open(root)
    assert len(writer.finish()) == 1


def test_a_writer_refuses_a_name_that_is_a_path(make_cohort: Make) -> None:
    root = make_cohort([0]).root.parent / "new"
    writer = CohortWriter(root, LabelSchema(("background",)), outcome_name=None, channel="MR")
    volume = Volume(np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.eye(4))
    with pytest.raises(InputError, match="may hold only"):
        writer.add("../outside", volume, None)
    assert not root.exists()


def test_a_scan_is_the_same_whatever_is_said_of_it(make_cohort: Make) -> None:
    """Another outcome, no mask, another header: another case to a cache, the same scan."""
    case = make_cohort([0, 1])["case_000"]
    relabelled, bare = replace(case, outcome=1), replace(case, mask_path=None)
    image = case.read_image()
    other = make_cohort([0, 1], name="other")
    image.write(other["case_000"].image_path)
    nifti = nib.load(other["case_000"].image_path)
    nifti.header["descrip"] = b"mended"
    nib.save(nifti, other["case_000"].image_path)
    for changed in (relabelled, bare, other["case_000"]):
        assert changed.digest() != case.digest()
        assert changed.scan_digest() == case.scan_digest()
    assert other["case_001"].scan_digest() != case.scan_digest()
    image.with_data(image.data + 1).write(other["case_000"].image_path)
    assert other["case_000"].scan_digest() != case.scan_digest()
