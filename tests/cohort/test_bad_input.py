"""Every bad input, made from a good cohort: the finding names case and value and says the mend.

The command ends with status 2 where the finding is an error, with 0 where it is not, and leaves
the cohort as it was.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from neonet3d.cohort.check import check_folder
from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.findings import Finding
from neonet3d.cohort.importers import import_cohort
from neonet3d.cohort.phantom.writer import write_phantom_cohort
from neonet3d.config import load_config
from neonet3d.types import LabelSchema

Make = Callable[..., Cohort]
Break = Callable[[Path], None]
CASE = "case_002"
F32 = np.float32


def image_of(root: Path) -> Path:
    return root / "imagesTr" / f"{CASE}_0000.nii.gz"


def mask_of(root: Path) -> Path:
    return root / "labelsTr" / f"{CASE}.nii.gz"


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def stream(edit: Callable[[bytearray], bytes | bytearray]) -> Break:
    """Of the compressed file."""

    def change(root: Path) -> None:
        image_of(root).write_bytes(edit(bytearray(image_of(root).read_bytes())))

    return change


def payload(place: slice, value: object, *, of: Callable[[Path], Path] = image_of) -> Break:
    """Bytes of the header or the voxels."""

    def change(root: Path) -> None:
        content = bytearray(gzip.decompress(of(root).read_bytes()))
        content[place] = np.asarray(value).tobytes()
        of(root).write_bytes(gzip.compress(content))

    return change


def voxels(
    edit: Callable[[np.ndarray], np.ndarray | None], *, of: Callable[[Path], Path] = mask_of
) -> Break:
    def change(root: Path) -> None:
        image = nib.load(of(root))
        data = np.asarray(image.dataobj).copy()
        edited = edit(data)
        nib.save(nib.Nifti1Image(data if edited is None else edited, image.affine), of(root))

    return change


def header(edit: Callable[[nib.Nifti1Image], object]) -> Break:
    def change(root: Path) -> None:
        loaded = nib.load(image_of(root))
        image = nib.Nifti1Image(np.asarray(loaded.dataobj).copy(), loaded.affine, loaded.header)
        edit(image)
        nib.save(image, image_of(root))

    return change


def table(old: str, new: str) -> Break:
    def change(root: Path) -> None:
        path = root / "participants.tsv"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def no_spacing(root: Path) -> None:
    payload(slice(252, 256), np.int16([0, 0]))(root)  # qform_code and sform_code
    payload(slice(80, 84), F32(0))(root)


def flip(raw: bytearray) -> bytearray:
    raw[len(raw) // 2] ^= 4
    return raw


def sheared(image: nib.Nifti1Image) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.2
    image.set_sform(affine, code=1)
    image.set_qform(None, code=0)


def moved_qform(image: nib.Nifti1Image) -> None:
    affine = np.eye(4)
    affine[0, 3] = 2.5
    image.set_qform(affine, code=1)


def with_text(image: nib.Nifti1Image) -> None:
    image.header["descrip"] = b"MUSTERMANN^ERIKA"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"born 1964-08-12"))


def with_nan(data: np.ndarray) -> None:
    data[1, 2, 3:5] = np.nan


def away(data: np.ndarray) -> None:
    data[...] = 0
    data[1:4, 1:8, 1:7], data[7:9, 4:6, 3:5] = 1, 2


def at_border(data: np.ndarray) -> None:
    data[0, 3:5, 3:5] = 2


def second_tumour(data: np.ndarray) -> None:
    data[7:9, 6, 5] = 2


def outside_tumour(data: np.ndarray) -> None:
    data[7:, 6:, 5:] = 0
    data[8, 7, 6] = 2


def link_out(root: Path) -> None:
    outside = root.parent / "elsewhere.nii.gz"
    image_of(root).rename(outside)
    image_of(root).symlink_to(outside)


def excel(root: Path) -> None:
    os.rename(image_of(root), root / "imagesTr" / "00123_0000.nii.gz")
    os.rename(mask_of(root), root / "labelsTr" / "00123.nii.gz")
    table(f"{CASE}\t{CASE}", "123\t123")(root)


def twin(root: Path) -> None:
    image_of(root).write_bytes((root / "imagesTr" / "case_001_0000.nii.gz").read_bytes())


def bomb(root: Path) -> None:
    content = gzip.decompress(image_of(root).read_bytes())
    image_of(root).write_bytes(gzip.compress(content + bytes(64 << 20)))


def boms(root: Path) -> None:
    path = root / "participants.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


# What is done to the cohort; severity; case; words of the problem; words of the mend.
BAD: dict[str, tuple[Break, str, str | None, str, str]] = {
    "truncated": (stream(lambda raw: raw[:-30]), "error", CASE, "is damaged", "Copy it again"),
    "bit flipped": (stream(flip), "error", CASE, f"{CASE}_0000.nii.gz is damaged", "Copy it"),
    "garbage": (stream(lambda raw: raw + b"x"), "error", CASE, "1 bytes that are no", "Copy it"),
    "bomb": (bomb, "error", CASE, "made to fill the memory: its header declares", "Copy it"),
    "no nifti": (stream(lambda _: b"hello"), "error", CASE, "not a whole NIfTI", "convert it"),
    "shear": (header(sheared), "error", CASE, "sheared (axes' cosine 0.196", "Resample"),
    "no place": (
        payload(slice(252, 256), np.int16([0, 0])),
        "warning",
        CASE,
        "says nowhere where it lies (no qform and no sform), so left and right are assumed",
        "Look whether the liver lies on the patient's right",
    ),
    "two places": (header(moved_qform), "warning", CASE, "disagree by 2.5 mm", "--fix OUT"),
    "NaN": (
        voxels(with_nan, of=image_of),
        "error",
        CASE,
        "2 voxels are NaN or Inf, the first at (1, 2, 3)",
        "replace them",
    ),
    "constant": (
        voxels(lambda data: data * 0 + 7, of=image_of),
        "error",
        CASE,
        "every voxel has the value 7",
        "remove the case",
    ),
    "zero spacing, no sform": (
        no_spacing,
        "error",
        CASE,
        "voxel size of [0.0, 1.0, 1.0] mm",
        "Convert the scan",
    ),
    "negative spacing beside a sform": (
        payload(slice(80, 84), F32(-2)),
        "warning",
        CASE,
        "voxel size of -2 x 1 x 1 mm",
        "--fix OUT",
    ),
    "micrometres": (
        header(lambda i: (i.set_sform(np.diag([700, 700, 900, 1])), i.set_qform(None, 0))),
        "error",
        CASE,
        "900 mm long; the spacing seems to be in µm",
        "Write it in mm",
    ),
    "header in µm": (payload(slice(123, 124), np.uint8(3)), "error", CASE, "in µm (1, 1, 1", "mm"),
    "4-D": (
        voxels(lambda data: np.stack([data, data], -1), of=image_of),
        "error",
        CASE,
        "4 dimensions (10, 9, 8, 2)",
        "Choose one channel or phase",
    ),
    "4-D of one": (
        voxels(lambda data: data[..., None], of=image_of),
        "warning",
        CASE,
        "(10, 9, 8, 1), with an axis of length 1",
        "--fix OUT",
    ),
    "RGB": (
        voxels(lambda d: np.zeros(d.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")]), of=image_of),
        "error",
        CASE,
        "voxels are RGB",
        "Export one channel",
    ),
    "complex": (
        voxels(lambda data: data.astype(np.complex64), of=image_of),
        "error",
        CASE,
        "voxels are complex",
        "Export one channel",
    ),
    "mask on another grid": (
        lambda root: nib.save(
            nib.Nifti1Image(np.asarray(nib.load(mask_of(root)).dataobj), np.diag([1, 1, 1.5, 1])),
            mask_of(root),
        ),
        "error",
        CASE,
        "corners lie 3.5 mm apart",
        "Re-export the mask",
    ),
    "float labels": (
        voxels(lambda data: data.astype(F32) + F32(4e-4)),
        "warning",
        CASE,
        "whole numbers stored as float32",
        "--fix OUT",
    ),
    "fractional labels": (
        voxels(lambda data: data.astype(F32) / 2),
        "error",
        CASE,
        "fractional values: 0.5 (309 voxels)",
        "without interpolation",
    ),
    "unknown labels": (
        voxels(lambda data: np.where(data == 2, 205, data).astype(np.int16)),
        "error",
        CASE,
        "does not name: 205 (27 voxels)",
        "205 -> 2",
    ),
    "image as mask": (
        lambda root: mask_of(root).write_bytes(image_of(root).read_bytes()),
        "error",
        CASE,
        "different values from",
        "Put the mask in its place",
    ),
    "empty mask": (voxels(lambda d: d * 0), "warning", CASE, "the mask is empty", "Draw it"),
    "no tumour": (voxels(lambda d: d.clip(0, 1)), "warning", CASE, "no tumour in", "Draw the"),
    "tumour outside": (voxels(away), "warning", CASE, "no tumour voxel touches the liver", "Look"),
    "tumour at the border": (
        voxels(at_border),
        "warning",
        CASE,
        "reaches the border of the scan: left (4 voxels)",
        "lower bound",
    ),
    "two tumours": (
        voxels(second_tumour),
        "note",
        CASE,
        "2 tumours, of 0.027, 0.002 mL",
        "shows the greatest",
    ),
    "one of two tumours outside": (
        voxels(outside_tumour),
        "warning",
        CASE,
        "1 of 2 tumours (0.001 mL) does not touch the liver",
        "Look at the mask",
    ),
    "no mask": (lambda root: mask_of(root).unlink(), "warning", CASE, "no mask", "Draw one"),
    "same pixels": (twin, "error", CASE, "same voxels as case_001, of another patient", "Keep one"),
    "text in a header": (header(with_text), "warning", CASE, "descrip, an extension", "--fix OUT"),
    "link": (link_out, "error", CASE, "link that leads out of the cohort", "file itself"),
    "Excel": (excel, "error", "123", "there is a scan 00123: Excel dropped", "as text"),
    "no scan": (lambda root: image_of(root).unlink(), "error", CASE, "there is no", "Add the scan"),
    "path": (table(f"\t{CASE}", "\t../x"), "error", "'../x'", "the id '../x'", "Rename it"),
    "formula": (table(f"\t{CASE}", "\t=cmd"), "error", "'=cmd'", "the id '=cmd'", "Rename it"),
    "script": (
        table(f"{CASE}\t{CASE}", f"<script>\t{CASE}"),
        "error",
        CASE,
        "the id '<script>'",
        "Rename it",
    ),
    "terminal": (table(f"\t{CASE}", "\t\x1b[2J"), "error", "'\\x1b[2J'", "'\\x1b[2J'", "Rename"),
    "row twice": (table(f"\t{CASE}\t", "\tcase_001\t"), "error", "case_001", "twice", "Keep one"),
    "outcome": (table(f"{CASE}\t0", f"{CASE}\tyes"), "error", CASE, "pni is 'yes', not 0", "Mend"),
    "no outcome": (table(f"{CASE}\t0", f"{CASE}\tn/a"), "warning", CASE, "no 'pni'", "Fill the"),
    "outcome 1.0": (
        table(f"{CASE}\t0", f"{CASE}\t0.0"),
        "warning",
        None,
        f"'pni' is written as '0.0' in 1 rows (the first is {CASE})",
        "--fix OUT",
    ),
    "text in the header's data_type": (
        payload(slice(4, 14), np.bytes_(b"MUSTERMANN")),
        "warning",
        CASE,
        "data_type",
        "--fix OUT",
    ),
    "byte-order mark": (boms, "warning", None, "byte-order mark", "--fix OUT"),
    "few positives": (
        table("case_001\t1", "case_001\t0"),
        "error",
        None,
        "4 patients have 'pni' = 1, fewer than 5 folds",
        "fewer folds",
    ),
    "one class": (table("\t1\n", "\t0\n"), "error", None, "'pni' is 0 for every case", "both"),
    "a patient twice": (
        table(f"{CASE}\t{CASE}", f"case_000\t{CASE}"),
        "note",
        None,
        "patient case_000 has 2 scans: case_000, case_002",
        "one side",
    ),
    "a patient with both outcomes": (
        table(f"{CASE}\t{CASE}\t0", f"case_001\t{CASE}\t0"),
        "warning",
        None,
        "patient case_001 has 'pni' both 0 and 1",
        "Correct",
    ),
    "a patient in two ways": (
        table(f"{CASE}\t{CASE}", f"0CASE_001\t{CASE}"),
        "warning",
        None,
        "the patients case_001 and 0CASE_001 may be one",
        "leading zeros",
    ),
    "a date in an id": (
        table(f"{CASE}\t{CASE}", f"p19640812\t{CASE}"),
        "warning",
        CASE,
        "a date",
        "rename",
    ),
    "orphan": (
        lambda root: (root / "imagesTr" / "x.nii.gz").write_bytes(b""),
        "warning",
        None,
        "imagesTr/x.nii.gz belongs to no case",
        "Add a row",
    ),
}


@pytest.fixture
def root(make_cohort: Make) -> Path:
    """Five negative and five positive patients; two spare negatives."""
    return make_cohort([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0]).root


def test_the_good_cohort_has_no_findings(root: Path) -> None:
    assert check_folder(root) == []


@pytest.mark.parametrize("kind", BAD)
def test_what_is_wrong_is_found_with_case_value_and_mend(
    kind: str, root: Path, run_check: Callable[..., tuple[int, dict[str, object], str]]
) -> None:
    break_it, severity, case, problem, mend = BAD[kind]
    break_it(root)
    before = snapshot(root)
    found = check_folder(root)
    matching = [f for f in found if problem in f.problem and f.severity == severity]
    assert len(matching) == 1, found
    assert matching[0].case == case
    assert mend in matching[0].mend
    assert matching[0].mend.endswith((".", "?"))
    assert "MUSTERMANN" not in str(found)

    status, machine, people = run_check(root)
    assert status == (2 if any(f.severity == "error" for f in found) else 0)
    assert [Finding(**finding) for finding in machine["findings"]] == found  # type: ignore[attr-defined]
    assert (case or "(cohort)") in people
    assert "\x1b[2J" not in people
    assert snapshot(root) == before


def test_empty_lines_in_the_table_are_none(root: Path) -> None:
    path = root / "participants.tsv"
    path.write_text("\n" + path.read_text().replace("\n", "\n\n"))
    assert check_folder(root) == []


@pytest.mark.parametrize("separator", [";", ","])
def test_a_table_with_another_separator_is_said_to_be_one(root: Path, separator: str) -> None:
    table("\t", separator)(root)
    with pytest.raises(Exception, match=f"separated by '{separator}' and not by tabs"):
        check_folder(root)


def test_columns_that_identify_are_named(root: Path) -> None:
    path = root / "participants.tsv"
    lines = path.read_text().splitlines()
    extra = ["patient_name\tbirth_date\tage", *["Erika M\t1964\t58"] * (len(lines) - 1)]
    path.write_text("".join(f"{a}\t{b}\n" for a, b in zip(lines, extra, strict=True)))
    (finding,) = check_folder(root)
    assert "columns that may identify a patient: patient_name, birth_date" in finding.problem
    assert "Erika" not in str(finding)


def test_official_splits_that_no_command_works_with_are_named(root: Path) -> None:
    """Nobody may stand on both sides, and 'Test' is no side."""
    path = root / "participants.tsv"
    head, *rows = path.read_text().splitlines()
    rows[1] = rows[1].replace("case_001\t", "case_000\t", 1)  # the patient; the case stays
    splits = ["train", "test", "Test", *["train"] * (len(rows) - 3)]
    lines = [f"{head}\tsplit", *(f"{a}\t{b}" for a, b in zip(rows, splits, strict=True))]
    path.write_text("".join(f"{line}\n" for line in lines))
    said = [f.problem for f in check_folder(root) if f.severity == "error"]
    assert said == [
        "the split of case_002 is 'Test'",
        "patient case_000 stands on both sides of the official split: "
        "case_000 in 'train' and case_001 in 'test'",
    ]


def test_findings_come_in_the_cohorts_order_errors_first(root: Path) -> None:
    for index in (7, 1, 4):
        path = root / "imagesTr" / f"case_{index:03d}_0000.nii.gz"
        path.write_bytes(path.read_bytes()[:-10])
        mask = root / "labelsTr" / f"case_{index - 1:03d}.nii.gz"
        mask.unlink()
    for _ in range(3):
        assert [(f.case, f.severity) for f in check_folder(root)] == [
            ("case_001", "error"),
            ("case_004", "error"),
            ("case_007", "error"),
            ("case_000", "warning"),
            ("case_003", "warning"),
            ("case_006", "warning"),
        ]


def test_real_hippocampi_are_in_order(real_data: Callable[[str], Path], tmp_path: Path) -> None:

    import_cohort(real_data("Task04_Hippocampus"), tmp_path / "hippocampus")
    assert check_folder(tmp_path / "hippocampus") == []


def test_a_phantom_is_in_order(tmp_path: Path) -> None:

    settings = load_config("demo", overrides=["phantom.spacing_mm=[4, 4, 6]", "phantom.n=6"])
    write_phantom_cohort(tmp_path / "phantom", settings.phantom, seed=1)
    found = check_folder(tmp_path / "phantom", n_folds=2)
    # So few patients may be of one class.
    assert [f for f in found if f.severity == "error" and f.case is not None] == []


def test_real_livers_are_in_order(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    """An MR and a CT with their masks of many organs, byte for byte as they were published."""
    source, root = real_data("totalseg_mr_ct"), tmp_path / "livers"
    schema = LabelSchema(("background", *(f"organ_{i}" for i in range(1, 118))))
    writer = CohortWriter(root, schema, outcome_name=None, channel="MR")
    for part in ("imagesTr", "labelsTr"):
        (root / part).mkdir(parents=True)
    for name, image, mask in (
        ("mr", "example_mr_sm", "example_seg_mr"),
        ("ct", "example_ct", "example_seg_fast_force_split"),
    ):
        shutil.copy(source / f"{image}.nii.gz", root / "imagesTr" / f"{name}_0000.nii.gz")
        shutil.copy(source / f"{mask}.nii.gz", root / "labelsTr" / f"{name}.nii.gz")
        writer.add_written(name)
    writer.finish()
    assert [f for f in check_folder(root) if f.severity == "error"] == []
