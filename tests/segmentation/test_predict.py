from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.volume import Volume, read_label_map, read_volume
from neonet3d.config import Config, NetworkName, load_config
from neonet3d.engine.artefact import read_card, save_artefact
from neonet3d.errors import InputError
from neonet3d.metrics.overlap import dice
from neonet3d.segmentation.localiser import FOLDER, Localiser, LocaliserUNet
from neonet3d.segmentation.networks import SegmentationNetwork
from neonet3d.segmentation.predict import (
    Ensemble,
    Search,
    Segmenter,
    plan_of,
    predict_cases,
    probability_path,
    read_probability,
)
from neonet3d.segmentation.train import train_segmenter
from neonet3d.types import LabelSchema, Triple

SCHEMA = LabelSchema(("background", "tumour"))
EXTENT_MM = 32.0


def config() -> Config:
    return load_config(
        "demo",
        overrides=[
            "segmenter.network=unet",
            "segmenter.channels=[8,16]",
            "segmenter.patch=[16,16,16]",
            "segmenter.spacing_mm=[1.5,1.5,1.5]",
            "segmenter.loop.steps=40",
            "segmenter.localiser_steps=40",
            "segmenter.loop.batch_size=2",
            "segmenter.loop.learning_rate=1.0e-2",
            "segmenter.loop.ema_decay=0.8",
        ],
        seed=0,
    )


def sphere(
    affine: np.ndarray, shape: tuple[int, ...], centre_mm: Triple, radius_mm: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball at a place in the world, on any grid; image and mask."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    mask = (((world - centre_mm) ** 2).sum(-1) < radius_mm**2).astype(np.uint8)
    noise = np.random.default_rng(seed).normal(0, 8, shape)
    return (60 + 100 * mask + noise).clip(1).astype(np.float32), mask


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("spheres"), np.random.default_rng(0)
    writer = CohortWriter(root / "cohort", SCHEMA, outcome_name=None, channel="MR", durable=False)
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    for number in range(6):
        centre_mm = tuple(rng.uniform(12, 22, 3))
        image, mask = sphere(affine, (22, 22, 22), centre_mm, rng.uniform(6, 9), number)
        writer.add(f"case_{number}", Volume(image, affine), Volume(mask, affine))
    cohort = writer.finish()
    train_segmenter(Fold("all", cohort, cohort.subset([])), config(), root / "model")
    return root / "model"


def lps(spacing_mm: Triple) -> np.ndarray:
    """Axes to the left, to the back and up, as most scanners write."""
    affine = np.diag([-spacing_mm[0], -spacing_mm[1], spacing_mm[2], 1.0])
    affine[:3, 3] = (EXTENT_MM, EXTENT_MM, 0)
    return affine


def superior_first(spacing_mm: Triple) -> np.ndarray:
    """The array's first axis runs from head to foot."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2] = -spacing_mm[0], spacing_mm[1], spacing_mm[2]
    affine[:, 3] = (0, 0, EXTENT_MM, 1)
    return affine


GRIDS = {
    "the training grid": np.diag([1.5, 1.5, 1.5, 1.0]),
    "LPS, thick slices": lps((1.0, 1.0, 3.0)),
    "slices first": superior_first((2.0, 1.2, 1.2)),
}


@pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
def test_a_mask_comes_back_on_the_users_own_grid(
    affine: np.ndarray, model: Path, tmp_path: Path
) -> None:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    shape = tuple(np.round(EXTENT_MM / spacing).astype(int))
    image, truth = sphere(affine, shape, (14.0, 19.0, 16.0), 7.5, seed=9)
    nib.Nifti1Image(image, affine).to_filename(tmp_path / "scan.nii.gz")

    found = Segmenter.load(model).segment(read_volume(tmp_path / "scan.nii.gz"))
    found.label_map.write(tmp_path / "mask.nii.gz")
    written = nib.Nifti1Image.from_filename(tmp_path / "mask.nii.gz")
    assert written.shape == shape
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    assert written.get_data_dtype() == np.uint8
    data = np.asanyarray(written.dataobj)
    assert dice(data, truth, {"tumour": 1})["tumour"] > 0.7

    probability = found.tumour_probability
    assert probability is not None
    assert probability.shape == found.label_map.shape
    assert 0 <= probability.min() < probability.max() <= 1 + 1e-5
    assert probability[found.label_map.data == 1].min() > 0.499


def test_a_scan_smaller_than_a_patch(model: Path) -> None:
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    image, mask = sphere(affine, (11, 12, 13), (8.0, 8.0, 9.0), 6, seed=1)
    found = Segmenter.load(model).segment(Volume(image, affine)).label_map
    assert found.shape == (11, 12, 13)
    assert dice(found.data, mask, {"tumour": 1})["tumour"] > 0.7


def test_the_same_scan_twice_and_in_other_units(model: Path) -> None:
    """MR has no units: gain must not matter."""
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    image, _ = sphere(affine, (22, 22, 22), (16.0, 16.0, 16.0), 7, seed=2)
    segmenter = Segmenter.load(model)
    first = segmenter.segment(Volume(image, affine))
    again = segmenter.segment(Volume(image, affine))
    np.testing.assert_array_equal(first.label_map.data, again.label_map.data)
    assert first.tumour_probability is not None
    assert again.tumour_probability is not None
    np.testing.assert_array_equal(first.tumour_probability, again.tumour_probability)
    louder = segmenter.segment(Volume(16 * image, affine))
    np.testing.assert_array_equal(louder.label_map.data, first.label_map.data)


def test_a_folder_of_predictions(
    model: Path, make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    cohort = make_cohort([None, None], masks=False)
    segmenter = Segmenter.load(model)
    written = predict_cases(segmenter, cohort, tmp_path / "out")
    assert written == {c.name: tmp_path / "out" / f"{c.name}.nii.gz" for c in cohort}
    for case in cohort:
        found = read_label_map(written[case.name], n_classes=2)
        assert found.shape == case.read_image().shape
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert labels == {"background": 0, "tumour": 1}
    overlaid = cohort.with_overlaid_masks(written, segmenter.card.schema_)
    assert len(overlaid.cases[0].read_with_mask()) == 2


def test_masks_that_stand_are_never_overwritten(model: Path, tmp_path: Path) -> None:
    """The cohort's own labelsTr is where somebody fills in what is missing."""
    writer = CohortWriter(tmp_path / "scans", SCHEMA, outcome_name=None, channel="MR")
    image = Volume(np.random.default_rng(0).normal(size=(16,) * 3).astype(np.float32), np.eye(4))
    drawn = Volume(np.ones((16,) * 3, np.uint8), np.eye(4))
    for name, mask in (("a", drawn), ("b", None)):
        writer.add(name, image, mask)
    cohort = writer.finish()
    with pytest.raises(InputError, match=r"holds a\.nii\.gz already \(1 of 2 cases\)"):
        predict_cases(Segmenter.load(model), cohort, cohort.root / "labelsTr")
    assert [path.name for path in (cohort.root / "labelsTr").iterdir()] == ["a.nii.gz"]
    kept = cohort["a"].read_mask()
    assert kept is not None
    assert (kept.data == 1).all()


@pytest.mark.parametrize("name", ["labels.json", "search.json", "metrics.csv", "summary.csv"])
def test_what_says_something_of_other_masks_is_never_overwritten(
    name: str, model: Path, make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("of fold 0")
    with pytest.raises(InputError, match=f"holds the {name} of other masks"):
        predict_cases(Segmenter.load(model), make_cohort([None], masks=False), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "of fold 0"


def test_no_tumour_class_no_tumour_probability(model: Path, tmp_path: Path) -> None:
    segmenter = Segmenter.load(model)
    card = segmenter.card.model_copy(update={"classes": ("background", "liver")})
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    image, _ = sphere(affine, (16, 16, 16), (12.0, 12.0, 12.0), 6, seed=3)
    assert (
        Segmenter(segmenter.network, card).segment(Volume(image, affine)).tumour_probability is None
    )


def test_another_kind_of_model_is_refused(model: Path, tmp_path: Path) -> None:
    card = Segmenter.load(model).card.model_copy(update={"kind": "Autoencoder"})
    save_artefact(tmp_path / "model", SegmentationNetwork(plan_of(card), 2), card)
    with pytest.raises(InputError, match="holds a Autoencoder, not a Segmenter"):
        Segmenter.load(tmp_path / "model")
    with pytest.raises(InputError, match=r"holds no model\.json"):
        Segmenter.load(tmp_path / "nothing")


def spheres(shape: tuple[int, int, int] = (40, 22, 30), seed: int = 4) -> tuple[Volume, np.ndarray]:
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    image, mask = sphere(affine, shape, (16.0, 17.0, 18.0), 7, seed=seed)
    return Volume(image, affine), mask


class Boxed(nn.Module):
    """Stands for a localiser's network that finds a box of the scan, or nothing."""

    def __init__(self, place: tuple[slice, slice, slice] | None) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.full_like(x, -9.0)
        if self.place is not None:
            y[0, 0][self.place] = 9.0
        return y


def localised(segmenter: Segmenter, place: tuple[slice, slice, slice] | None) -> Segmenter:
    card = segmenter.card.model_copy(
        update={
            "kind": "Localiser",
            "shape": (12, 12, 12),
            "spacing_mm": (5.0, 5.0, 5.0),
            "parts": {"smallest_mm3": 1.0},
        }
    )
    return Segmenter(segmenter.network, segmenter.card, Localiser(Boxed(place), card))


def without_localiser(model: Path) -> Segmenter:
    loaded = Segmenter.load(model)
    return Segmenter(loaded.network, loaded.card)


def test_outside_of_what_is_found_all_is_background(model: Path) -> None:
    """The coarse grid of 12 x 12 x 12 voxels of 5 mm has its middle on the scan's."""
    image, mask = spheres()
    whole = without_localiser(model)
    assert whole.segment(image).searches[0].where == "whole scan"
    boxed = localised(whole, (slice(1, 5), slice(4, 8), slice(3, 8)))
    found = boxed.segment(image)
    assert found.searches[0].where == "foreground"
    assert found.searches[0].windows < whole.segment(image).searches[0].windows
    assert dice(found.label_map.data, mask, {"tumour": 1})["tumour"] > 0.7
    probability = found.tumour_probability
    assert probability is not None
    assert not probability[-5:].any()
    assert not found.label_map.data[-5:].any()


def test_where_nothing_is_found_the_whole_scan_is_read(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, _ = spheres()
    whole = without_localiser(model)
    blind = localised(whole, None)
    found, reference = blind.segment(image), whole.segment(image)
    assert found.searches == (Search("nothing found", reference.searches[0].windows),)
    np.testing.assert_array_equal(found.label_map.data, reference.label_map.data)
    writer = CohortWriter(tmp_path / "scans", SCHEMA, outcome_name=None, channel="MR")
    writer.add("case_000", image, None)
    predict_cases(blind, writer.finish(), tmp_path / "out")
    said = json.loads((tmp_path / "out" / "search.json").read_text())
    assert said["case_000"][0]["where"] == "nothing found"
    assert "case_000: no foreground was found" in capsys.readouterr().err


def test_the_localiser_is_loaded_with_its_segmenter(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    localiser = Segmenter.load(folder).localiser
    assert localiser is not None
    assert read_card(folder).parents == {"localiser": localiser.card.weights_sha256}
    save_artefact(folder / FOLDER, LocaliserUNet(), localiser.card)
    with pytest.raises(InputError, match="localiser was not trained with the segmenter in"):
        Segmenter.load(folder)
    shutil.rmtree(folder / FOLDER)
    with pytest.raises(InputError, match=r"lacks localiser, .* Copy the whole folder again"):
        Segmenter.load(folder)


def test_a_card_says_whether_a_localiser_belongs_to_it(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    path = folder / "model.json"
    card = json.loads(path.read_text())
    del card["parts"]["localiser"]
    path.write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"does not say whether a localiser .* Train the model"):
        Segmenter.load(folder)
    card["parts"]["localiser"], card["parents"] = False, {}
    path.write_text(json.dumps(card))
    with pytest.raises(InputError, match="was not trained with the segmenter"):
        Segmenter.load(folder)


def test_an_ensemble_averages_probabilities(model: Path) -> None:
    image, _ = spheres()
    one = Segmenter.load(model)
    other = localised(Segmenter.load(model), (slice(1, 5), slice(4, 8), slice(3, 8)))
    alone, twice = one.segment(image), Ensemble([one, one]).segment(image)
    assert alone.tumour_probability is not None
    assert twice.tumour_probability is not None
    np.testing.assert_allclose(twice.tumour_probability, alone.tumour_probability, atol=1e-6)
    mixed = Ensemble([one, other]).segment(image)
    second = other.segment(image)
    assert second.tumour_probability is not None
    assert mixed.tumour_probability is not None
    mean = (alone.tumour_probability + second.tumour_probability) / 2
    np.testing.assert_allclose(mixed.tumour_probability, mean, atol=1e-6)
    np.testing.assert_array_equal(mixed.label_map.data[mean < 0.49], 0)
    np.testing.assert_array_equal(mixed.label_map.data[mean > 0.51], 1)


def test_the_members_of_an_ensemble_know_the_same_classes_and_all_cases(model: Path) -> None:
    one = Segmenter.load(model)
    other = Segmenter(one.network, one.card.model_copy(update={"training_cases": ("f" * 64,)}))
    assert set(Ensemble([one, other]).card.training_cases) == {*one.card.training_cases, "f" * 64}
    liver = one.card.model_copy(update={"classes": ("background", "liver")})
    with pytest.raises(InputError, match="members of an ensemble know different classes"):
        Ensemble([one, Segmenter(one.network, liver)])


def test_probabilities_are_written_on_request(
    model: Path, make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    """One byte a voxel; every reader that knows NIfTI scales it to 0 to 1."""
    cohort = make_cohort([None], masks=False)
    segmenter, case = Segmenter.load(model), cohort.cases[0]
    predict_cases(segmenter, cohort, tmp_path / "out", keep=("tumour",))
    path = probability_path(tmp_path / "out", case.name, "tumour")
    assert path == tmp_path / "out" / "probabilities" / "case_000_tumour.nii.gz"
    stored = nib.Nifti1Image.from_filename(path)
    assert stored.get_data_dtype() == np.uint8
    expected = segmenter.segment(case.read_image()).tumour_probability
    assert expected is not None
    np.testing.assert_allclose(stored.get_fdata(), expected, atol=0.5 / 255 + 1e-6)
    read = read_probability(tmp_path / "out", case.name, "tumour")
    np.testing.assert_allclose(read, expected, atol=0.5 / 255 + 1e-6)
    predict_cases(segmenter, cohort, tmp_path / "masks")
    assert not (tmp_path / "masks" / "probabilities").exists()


def test_only_what_is_asked_for_is_kept(model: Path) -> None:
    image, _ = spheres()
    segmenter = Segmenter.load(model)
    assert segmenter.segment(image, keep=()).tumour_probability is None
    both = segmenter.segment(image, keep=("background", "tumour")).probabilities
    np.testing.assert_allclose(both["background"] + both["tumour"], 1, atol=1e-5)


@pytest.mark.parametrize("network", get_args(NetworkName))
def test_every_network_is_stored_and_reads_scans(
    network: str, make_cohort: Callable[..., Cohort], tmp_path: Path
) -> None:
    """With the sizes of its plan: its lowest level is as short as bf16 weights ever meet."""
    cohort = make_cohort([0, 1])
    settings = load_config(
        "cpu",
        overrides=[
            f"segmenter.network={network}",
            "segmenter.width=8",
            "segmenter.loop.steps=1",
            "segmenter.loop.batch_size=1",
        ],
    )
    train_segmenter(Fold("all", cohort, cohort.subset([])), settings, tmp_path / "model")
    image = cohort.cases[0].read_image()
    found = Segmenter.load(tmp_path / "model").segment(image)
    assert found.label_map.shape == image.shape


def test_a_scan_of_one_window_is_not_searched(model: Path) -> None:
    segmenter = Segmenter.load(model)
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    image, _ = sphere(affine, (14, 14, 14), (10.0, 10.0, 10.0), 6, seed=3)
    blind = localised(without_localiser(model), None)
    found = blind.segment(Volume(image, affine))
    assert found.searches == (Search("whole scan", 1),)
    assert segmenter.segment(Volume(image, affine)).searches == found.searches


def test_a_model_without_a_plan_is_a_sentence(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    card = json.loads(path.read_text())
    card["parts"] = {}
    path.write_text(json.dumps(card))
    with pytest.raises(InputError, match="plan of this Segmenter is missing"):
        Segmenter.load(tmp_path / "model")
