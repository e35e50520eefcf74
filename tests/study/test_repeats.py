"""Repeats of one study, as made from a small one by dividing its patients otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from neonet3d.errors import InputError
from neonet3d.metrics.discrimination import auc
from neonet3d.study.repeats import require_one_configuration, summarise_repeats
from neonet3d.study.results import StudyResults


def repeat(of: StudyResults, seed: int) -> StudyResults:
    """Other folds, other probabilities, and the cases in another order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(of.cases))
    positive = [i for i in order if of.outcomes[i] == 1]
    negative = [i for i in order if of.outcomes[i] == 0]
    half = set(positive[::2]) | set(negative[::2])
    arms = tuple(
        arm.model_copy(update={"probabilities": tuple(rng.random(len(order)).tolist())})
        for arm in of.arms
    )
    return of.model_copy(
        update={
            "cases": tuple(of.cases[i] for i in order),
            "outcomes": tuple(of.outcomes[i] for i in order),
            "folds": tuple(int(i in half) for i in order),
            "arms": arms,
        }
    )


@pytest.fixture(scope="module")
def study(tiny_study: tuple[Path, Any]) -> StudyResults:
    return StudyResults.read(tiny_study[0])


def test_repeats_differ_in_their_seed_alone(tiny_study: tuple[Path, Any], tmp_path: Path) -> None:
    first, config = tiny_study[0], yaml.safe_load((tiny_study[0] / "config.yaml").read_text())
    for name, changed in (("again", {"seed": 5}), ("other", {"balance": {}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config | changed))
    require_one_configuration([first, tmp_path / "again"])
    with pytest.raises(InputError, match="another 'balance' than"):
        require_one_configuration([first, tmp_path / "other"])
    with pytest.raises(InputError, match=r"has no config\.yaml"):
        require_one_configuration([first, tmp_path])


def test_patients_are_matched_by_name_over_the_repeats(study: StudyResults) -> None:
    studies = [repeat(study, seed) for seed in range(3)]
    arms = summarise_repeats(studies)
    assert [arm.key for arm in arms] == [arm.key for arm in study.arms]
    for number, arm in enumerate(arms):
        own = [
            auc(np.array(one.outcomes), np.array(one.arms[number].probabilities)) for one in studies
        ]
        assert arm.repeat_aucs == pytest.approx(own)
        assert arm.pooled.value == pytest.approx(np.mean(own))
        assert arm.pooled.n == len(study.cases)
        assert "6 values" in arm.fold_mean.method
    assert arms[0].difference is None
    assert arms[1].difference is not None
    expected = arms[0].fold_mean.value - arms[1].fold_mean.value
    assert arms[1].difference.value == pytest.approx(expected)


def test_what_are_no_repeats_is_refused(study: StudyResults) -> None:
    first, second = repeat(study, 0), repeat(study, 1)
    with pytest.raises(InputError, match=r"no repeats\. Give the run folders"):
        summarise_repeats([first])
    with pytest.raises(InputError, match="the same folds"):
        summarise_repeats([first, second, first])
    with pytest.raises(InputError, match="other arms"):
        summarise_repeats([first, second.model_copy(update={"arms": second.arms[:1]})])
    renamed = second.model_copy(update={"cases": tuple(f"x{name}" for name in second.cases)})
    with pytest.raises(InputError, match="other patients"):
        summarise_repeats([first, renamed])
    three = tuple(i % 3 for i in range(len(second.cases)))
    with pytest.raises(InputError, match="2 and 3 folds"):
        summarise_repeats([first, second.model_copy(update={"folds": three})])
    turned = second.model_copy(update={"outcomes": tuple(1 - v for v in second.outcomes)})
    with pytest.raises(InputError, match="other outcomes"):
        summarise_repeats([first, turned])


def test_the_command_reads_run_folders(
    study: StudyResults, run: Callable[..., Any], tmp_path: Path
) -> None:
    folders = []
    for seed in range(2):
        folders.append(tmp_path / f"seed-{seed}")
        folders[-1].mkdir()
        (folders[-1] / "results.json").write_text(repeat(study, seed).model_dump_json())
        (folders[-1] / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "study": {}}))
    found = run("study", "repeats", *folders, "--json").json()
    assert [arm["key"] for arm in found["arms"]] == [arm.key for arm in study.arms]
    assert len(found["arms"][0]["repeat_aucs"]) == 2
    assert study.arms[0].title in run("study", "repeats", *folders).stdout
    (folders[0] / "results.json").write_text("{}")
    ended = run("study", "repeats", *folders)
    assert ended.status == 2
    assert "is not what this version of neonet3d writes (title:" in ended.stderr
    assert run("study", "repeats", tmp_path, tmp_path).status == 2
