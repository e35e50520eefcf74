from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import Patches
from neonet3d.config import Config
from neonet3d.engine.run import RunFolder
from neonet3d.errors import InputError
from neonet3d.generation.rivals.budget import RivalFailedError, RivalRecord
from neonet3d.report.augmentation import write_augmentation_report
from neonet3d.study import augmentation, rivals
from neonet3d.study.augmentation import run_augmentation_study, scaled
from neonet3d.study.augmentation_results import AugmentationResults
from neonet3d.study.rivals import OURS

STUDY = {
    "real_cases": (2, 3),
    "networks": ("unet",),
    "ratios": (1.0,),
    "combined": True,
    "seeds": 1,
    "width": 4,
    "rivals": (),
    "generator_share": 1.0,
}


@pytest.fixture(scope="module")
def config(tiny: Config) -> Config:
    loop = tiny.augmentation_study.loop.model_copy(update={"steps": 2})
    section = tiny.augmentation_study.model_copy(update=STUDY | {"loop": loop})
    return tiny.model_copy(update={"augmentation_study": section})


@pytest.fixture(scope="module")
def fold(scans: Cohort) -> Fold:
    return Fold("fold-0", scans.subset(scans.cases[:4]), scans.subset(scans.cases[4:]))


@pytest.fixture(scope="module")
def run(
    fold: Fold, config: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, AugmentationResults]:
    pytest.importorskip("efficientnet_lite_pytorch")
    path = tmp_path_factory.mktemp("study") / "run"
    return path, study(fold, path, config)


def study(fold: Fold, path: Path, config: Config) -> AugmentationResults:
    with RunFolder.open(path, config, study="augmentation", command="test") as folder:
        return run_augmentation_study(fold, folder, title="Spheres")


def test_every_number_arm_and_class_has_its_row(
    run: tuple[Path, AugmentationResults], config: Config
) -> None:
    path, results = run
    assert AugmentationResults.read(path) == results
    rows = {(c.network, c.arm, c.real_cases, c.label) for c in results.cells}
    assert rows == {
        ("unet", arm, n, label)
        for arm in ("real", "classic", "synthetic_1", "both", "synthetic")
        for n in (2, 3)
        for label in ("liver", "portal_vein", "hepatic_vein", "tumour")
    }
    assert all(c.dice.n <= 4 and 0 <= c.dice.value <= 1 for c in results.cells)
    assert [row.key for row in results.generators] == [OURS]
    assert results.generators[0].seconds > 0
    assert (results.n_pool, results.n_held_out) == (3, 4)


def test_a_second_start_does_nothing_again(
    run: tuple[Path, AugmentationResults], fold: Fold, config: Config
) -> None:
    path, results = run
    made = sorted(p for p in path.rglob("*") if p.is_file() and p.parent != path)
    before = [p.stat().st_mtime_ns for p in made]
    again = study(fold, path, config)
    assert [p.stat().st_mtime_ns for p in made] == before
    assert again.model_copy(update={"seconds": {}}) == results.model_copy(update={"seconds": {}})


def test_smaller_numbers_are_part_of_larger_ones(run: tuple[Path, AugmentationResults]) -> None:
    from neonet3d.engine.artefact import read_card

    few, more = (
        set(read_card(run[0] / name / "generator" / "autoencoder").training_cases)
        for name in ("n-002", "n-003")
    )
    assert len(few) == 2
    assert few < more


def test_the_report_names_data_and_configuration(run: tuple[Path, AugmentationResults]) -> None:
    page = write_augmentation_report(run[0]).read_text()
    for word in ("configuration", "data ", "## Generators", "## Segmenters", "| 2 real cases |"):
        assert word in page
    assert (run[0] / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_too_small_a_pool_is_refused_before_anything_is_trained(
    fold: Fold, config: Config, tmp_path: Path
) -> None:
    section = config.augmentation_study.model_copy(update={"real_cases": (2, 9)})
    greedy = config.model_copy(update={"augmentation_study": section})
    with pytest.raises(InputError, match="wants 9 real cases"):
        study(fold, tmp_path / "run", greedy)
    assert not list((tmp_path / "run").glob("n-*"))


@pytest.mark.parametrize(
    ("rival", "sentence"),
    [("gan", "There is no rival 'gan'"), ("ha-gan", "cannot draw patches of")],
)
def test_a_rival_that_cannot_be_built_is_refused_before_anything_is_trained(
    rival: str, sentence: str, fold: Fold, config: Config, tmp_path: Path
) -> None:
    section = config.augmentation_study.model_copy(update={"rivals": (rival,)})
    wanting = config.model_copy(update={"augmentation_study": section})
    with pytest.raises(InputError, match=sentence):
        study(fold, tmp_path / "run", wanting)
    assert not list((tmp_path / "run").glob("n-*"))


def test_the_generator_is_scaled_and_nothing_else(config: Config) -> None:
    section = config.augmentation_study.model_copy(update={"generator_share": 0.5})
    short = scaled(config.model_copy(update={"augmentation_study": section}))
    assert short.unet.loop.steps == 1
    assert short.autoencoder == config.autoencoder
    assert short.segmenter == config.segmenter
    assert short.masks == config.masks


class Stub:
    """A rival that gives the held-out images back, or one that diverges."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fit(self, patches: Patches, *, seconds: float, seed: int) -> RivalRecord:
        if self.name == "ha-gan":
            raise RivalFailedError("ha-gan: the loss became nan.")
        assert seconds > 0
        self.images = patches.images
        return RivalRecord({"all": 3}, {}, seconds)

    def sample(self, maps: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        return self.images[torch.arange(len(maps)) % len(self.images)]


def test_a_rival_that_fails_is_named_and_the_others_stay(
    run: tuple[Path, AugmentationResults],
    fold: Fold,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    section = config.augmentation_study.model_copy(update={"rivals": ("med-ddpm", "ha-gan")})
    wanting = config.model_copy(update={"augmentation_study": section})
    for module in (augmentation, rivals):
        monkeypatch.setattr(module, "build_rival", lambda name, *_, **__: Stub(name))
    path = shutil.copytree(run[0], tmp_path / "run")
    results = study(fold, path, wanting)
    assert [row.key for row in results.generators] == [OURS, "med-ddpm"]
    assert results.generators[1].steps == {"all": 3}
    assert results.failed == {"ha-gan": "ha-gan: the loss became nan."}
    page = write_augmentation_report(path).read_text()
    assert "ha-gan is not in the table. ha-gan: the loss became nan." in page
    assert f"KID of {OURS} below that of: med-ddpm" in page
    monkeypatch.setattr(Stub, "fit", None)  # neither is trained again
    assert study(fold, path, wanting).failed == results.failed
