"""Clinical variables: read where named, refused where they identify or tell the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from neonet3d.classification.clinical import ClinicalColumn, clinical_table, fit_columns
from neonet3d.classification.predict import Classifier
from neonet3d.classification.train_clinical import train_clinical
from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config, load_config
from neonet3d.errors import InputError
from neonet3d.metrics.discrimination import auc
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "tumour"))


def write(root: Path, rows: list[Mapping[str, str]], outcomes: list[int]) -> Cohort:
    root.mkdir()
    writer = CohortWriter(root, SCHEMA, outcome_name="pni", channel="HBP", durable=False)
    scan = Volume(np.ones((4, 4, 4), dtype=np.float32), np.eye(4))
    for i, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        writer.add(f"case_{i}", scan, None, outcome=outcome, extra=row)
    return writer.finish()


def rows_of(outcomes: list[int], seed: int) -> list[Mapping[str, str]]:
    """Older patients are positive; the centre says nothing; one age is missing."""
    rng = np.random.default_rng(seed)
    ages = [f"{50 + 20 * y + rng.normal(0, 3):.0f}" for y in outcomes]
    ages[0] = "n/a"
    return [{"age": age, "centre": "abba"[i % 4]} for i, age in enumerate(ages)]


@pytest.fixture
def fold(tmp_path: Path) -> Fold:
    outcomes = [i % 2 for i in range(20)]
    training = write(tmp_path / "training", rows_of(outcomes, 0), outcomes)
    return Fold("fold-0", training, write(tmp_path / "held_out", rows_of(outcomes, 1), outcomes))


@pytest.fixture
def config() -> Config:
    return load_config("demo", overrides=["clinical.columns=[age,centre]"])


def test_numbers_and_levels(fold: Fold) -> None:
    columns = fit_columns(fold.training, ("age", "centre"))
    assert columns == (
        ClinicalColumn(name="age", levels=None),
        ClinicalColumn(name="centre", levels=("a", "b")),
    )
    assert [name for c in columns for name in c.features] == ["age", "centre=a", "centre=b"]
    table = clinical_table(fold.training, columns)
    assert table.shape == (20, 3)
    assert np.isnan(table[0, 0])
    assert np.isfinite(table[1:]).all()
    assert table[:4, 1:].tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]


def test_a_level_that_training_did_not_know_is_missing(tmp_path: Path, fold: Fold) -> None:
    columns = fit_columns(fold.training, ("centre",))
    other = write(tmp_path / "other", [{"centre": "c"}, {"centre": "n/a"}], [0, 1])
    assert np.isnan(clinical_table(other, columns)).all()


def test_the_rows_are_those_of_the_cases(fold: Fold) -> None:
    columns = fit_columns(fold.training, ("age",))
    whole = clinical_table(fold.training, columns)
    part = fold.training.subset(fold.training.cases[5:9])
    assert clinical_table(part, columns).tolist() == whole[5:9].tolist()


def test_the_table_alone_predicts(fold: Fold, config: Config, tmp_path: Path) -> None:
    train_clinical(fold, config, tmp_path / "clinical")
    classifier = Classifier.load(tmp_path / "clinical")
    probability = classifier.predict(fold.held_out)
    assert auc(fold.held_out.outcomes[1:], probability[1:]) > 0.95
    assert classifier.prevalence == pytest.approx(0.5)
    assert classifier.card.parts["features"] == ["age", "centre=a", "centre=b"]


def test_a_mended_value_makes_another_model(fold: Fold, config: Config, tmp_path: Path) -> None:
    """Scans, masks and outcomes are the same, and so are the cases' digests."""
    train_clinical(fold, config, tmp_path / "before")
    digests = [case.digest() for case in fold.training]
    table, hashed = fold.training.root / "participants.tsv", fold.training.table_sha256()
    table.write_text(table.read_text().replace("n/a", "95"))
    assert [case.digest() for case in fold.training] == digests
    assert fold.training.table_sha256() != hashed
    with pytest.raises(InputError, match="not of this configuration"):
        train_clinical(fold, config, tmp_path / "before")
    train_clinical(fold, config, tmp_path / "after")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("before", "after")]
    assert weights[0] != weights[1]


def test_synthetic_cases_have_no_table(config: Config, tmp_path: Path) -> None:
    outcomes = [i % 2 for i in range(20)]
    rows = [{**row, "synthetic": "0"} for row in rows_of(outcomes, 0)]
    more = [{"synthetic": "1"} for _ in range(6)]
    real = write(tmp_path / "real", rows, outcomes)
    both = write(tmp_path / "both", [*rows, *more], [*outcomes, *[1] * 6])
    weights = []
    for name, cohort in (("real", real), ("both", both)):
        folder = tmp_path / f"of-{name}"
        train_clinical(Fold("all", cohort, cohort.subset([])), config, folder)
        weights.append((folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([], "No clinical variables are named"),
        (["pni"], "'pni' is no clinical variable"),
        (["participant_id"], "'participant_id' is no clinical variable"),
        (["sex"], r"no column 'sex' among its variables \['age', 'centre'\]"),
    ],
)
def test_columns_that_cannot_be_used(fold: Fold, columns: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_columns(fold.training, columns)


def test_free_text_and_empty_columns_are_refused(tmp_path: Path) -> None:
    words = [{"note": f"seen on day {i}", "bilirubin": "n/a"} for i in range(11)]
    cohort = write(tmp_path / "words", words, [i % 2 for i in range(11)])
    with pytest.raises(InputError, match="11 different words"):
        fit_columns(cohort, ["note"])
    with pytest.raises(InputError, match=r"'bilirubin' .* is empty in all"):
        fit_columns(cohort, ["bilirubin"])


@pytest.mark.parametrize("value", ["old", "inf"])
def test_a_word_where_training_had_numbers(fold: Fold, tmp_path: Path, value: str) -> None:
    columns = fit_columns(fold.training, ("age",))
    other = write(tmp_path / "other", [{"age": "61"}, {"age": value}], [0, 1])
    with pytest.raises(InputError, match=f"case_1: age is '{value}' and not a number"):
        clinical_table(other, columns)
