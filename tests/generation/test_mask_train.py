from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import draw_shifts, load_label_maps
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config, MasksConfig, load_config
from neonet3d.engine.artefact import read_card
from neonet3d.engine.device import fabric
from neonet3d.errors import InputError, RunError
from neonet3d.generation.latents import LARGEST_SHIFT, n_views
from neonet3d.generation.mask_generator import MaskGenerator
from neonet3d.generation.mask_train import train_mask_generator
from neonet3d.types import LabelSchema

VOXEL_MM3 = 8.0
TUMOUR = 3


def everyone(cohort: Cohort) -> Fold:
    return Fold("fold-0", cohort, cohort.subset([]))


MASK_PARTS = ("autoencoder", "flow")


def longer(config: Config) -> Config:
    """Enough steps for a tumour in the middle of a liver."""

    def steps(section: Any, n: int) -> Any:
        loop = section.loop.model_copy(update={"steps": n, "learning_rate": 5e-3})
        return section.model_copy(update={"loop": loop})

    masks = config.masks
    update = {
        "autoencoder": steps(masks.autoencoder, 150),
        "flow": steps(masks.flow, 150),
    }
    return config.model_copy(update={"masks": masks.model_copy(update=update)})


def drawing(**changes: Any) -> MasksConfig:
    """From noise alone, unless said otherwise."""
    update = {"start": 1.0, "volume_factor": 4.0, **changes}
    return load_config("demo").masks.model_copy(update=update)


@pytest.fixture(scope="module")
def masks(
    patients: Cohort,
    tiny_config: Callable[[int], Config],
    tmp_path_factory: pytest.TempPathFactory,
) -> MaskGenerator:
    folder = tmp_path_factory.mktemp("masks")
    return train_mask_generator(everyone(patients), longer(tiny_config(0)), folder)


def test_both_parts_are_artefacts_of_one_training(trained: Any) -> None:
    folder = trained.folder / "masks"
    autoencoder, flow = read_card(folder / "autoencoder"), read_card(folder / "flow")
    assert flow.parents == {"autoencoder": autoencoder.weights_sha256}
    assert flow.training_cases == trained.generator.card.training_cases
    assert flow.grid == trained.generator.card.grid
    assert set(autoencoder.facts["training_dice"]) == {"liver", "portal_vein", "tumour"}


def test_the_flow_draws_around_the_mean_of_each_place(
    masks: MaskGenerator, patients: Cohort
) -> None:
    """That of the training latents in all positions, and drawing adds it."""
    maps, _ = load_label_maps(patients, masks.card.grid)
    shifts = draw_shifts(n_views(len(patients)), LARGEST_SHIFT, seed=0)
    with torch.no_grad(), fabric().autocast():
        latents = [masks.autoencoder.encode(shift.apply(maps)).float() for shift in shifts]
    expected = torch.cat(latents).mean(0)
    torch.testing.assert_close(masks.flow.place_mean, expected, rtol=0.02, atol=0.02)
    assert float(expected.abs().max()) > 0.5
    generators = [torch.Generator().manual_seed(0) for _ in range(3)]
    told = masks.statistics.draw(2, generators[0])
    drawn = masks._draw(told, drawing(), generators[1], None)
    kept = masks.flow.place_mean.clone()
    masks.flow.place_mean.zero_()
    without = masks._draw(told, drawing(), generators[2], None)
    masks.flow.place_mean.copy_(kept)
    assert not torch.equal(drawn, without)


def test_tumours_have_the_volume_asked_for(masks: MaskGenerator) -> None:
    drawn = masks.sample(6, drawing(), seed=0, outcome=1, tumour_volume_mm3=1400)
    maps = drawn.label_maps.numpy()
    assert maps.shape == (6, 24, 16, 16)
    assert drawn.outcomes.tolist() == [1] * 6
    assert ((maps == TUMOUR).sum((1, 2, 3)) == 1400 / VOXEL_MM3).all()
    np.testing.assert_allclose(drawn.volumes_mm3, 1400)
    for label_map in maps:
        assert ndimage.label(label_map == TUMOUR, np.ones((3, 3, 3)))[1] == 1
    assert len({m.tobytes() for m in maps}) == 6


def test_the_seed_decides(masks: MaskGenerator) -> None:
    first, again, other = (masks.sample(3, drawing(), seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.label_maps, again.label_maps)
    assert not np.array_equal(first.label_maps, other.label_maps)
    assert set(first.outcomes.tolist()) <= {0, 1}


def test_maps_start_from_masks_of_training(masks: MaskGenerator, patients: Cohort) -> None:
    """The less noise, the more of them is left; all noise, and nothing is."""
    drawn = [masks.sample(6, drawing(start=t), seed=0, training=patients) for t in (0.1, 1.0)]
    digests = {case.digest() for case in patients}
    assert set(drawn[0].sources) <= digests
    assert drawn[1].sources == ("",) * 6
    near, far = (float(np.mean(masks.novelty(one, patients).drawn)) for one in drawn)
    assert near > far
    alone = masks.sample(6, drawing(), seed=0).label_maps
    np.testing.assert_array_equal(alone, drawn[1].label_maps)
    with pytest.raises(InputError, match="cohort of training"):
        masks.sample(1, drawing(start=0.5), seed=0)


def test_each_map_starts_from_the_case_of_its_conditions(
    masks: MaskGenerator, patients: Cohort
) -> None:
    """In whatever order the cohort lists them: volumes of training are those of the starts."""
    turned = replace(patients, cases=patients.cases[::-1])
    assert [case.name for case in turned] != [case.name for case in patients]
    starts = masks._starts(turned)
    volumes_mm3 = (starts == TUMOUR).flatten(1).sum(1) * VOXEL_MM3
    torch.testing.assert_close(volumes_mm3.float(), masks.statistics.volumes_mm3)
    told = masks.statistics.draw(50, torch.Generator().manual_seed(0))
    assert told.outcomes.tolist() == masks.statistics.outcomes[told.sources].tolist()
    one = drawing(start=0.05)
    drawn = masks._draw(told.rows(torch.arange(4)), one, torch.Generator().manual_seed(0), starts)
    apart = [[float((new != start).float().mean()) for start in starts] for new in drawn]
    own = told.sources[:4].tolist()
    assert np.mean([row[i] for row, i in zip(apart, own, strict=True)]) < np.mean(apart)


def test_what_matters_in_drawing_alone_is_not_in_the_card(trained: Any) -> None:
    assert set(read_card(trained.folder / "masks" / "flow").config) == {"autoencoder", "flow"}


def test_how_new_they_are_is_measured_on_the_training_cases(
    masks: MaskGenerator, patients: Cohort
) -> None:
    drawn = masks.sample(3, drawing(), seed=0)
    novelty = masks.novelty(drawn, masks.card.training_cases_of(patients))
    assert (novelty.drawn.shape, novelty.training.shape) == ((3,), (len(patients),))
    assert (novelty.drawn < 1).all()
    with pytest.raises(InputError, match="lacks 2 of the 6 cases"):
        masks.card.training_cases_of(patients.subset(patients.cases[2:]))


def test_what_it_was_not_trained_for_is_refused(masks: MaskGenerator) -> None:
    with pytest.raises(InputError, match="those of training have"):
        masks.sample(1, drawing(), seed=0, tumour_volume_mm3=1e7)
    blind = MaskGenerator.__new__(MaskGenerator)
    blind.__dict__.update(masks.__dict__)
    blind.card = masks.card.model_copy(update={"outcome": None})
    with pytest.raises(InputError, match="without outcomes"):
        blind.sample(1, drawing(), seed=0, outcome=1)


def test_it_gives_up_where_no_tumour_is_near_the_volume(masks: MaskGenerator) -> None:
    strict = drawing(volume_factor=1.0, attempts=2)
    with pytest.raises(RunError, match=r"2 of 2 label maps .* in 2 draws"):
        masks.sample(2, strict, seed=0, tumour_volume_mm3=1401.5)


def test_parts_of_two_trainings_do_not_mix(
    masks: MaskGenerator, trained: Any, train_tiny: Callable[[int], Any], tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "flow").symlink_to(trained.folder / "masks" / "flow")
    (mixed / "autoencoder").symlink_to(train_tiny(1).folder / "masks" / "autoencoder")
    with pytest.raises(InputError, match="trained on another autoencoder"):
        MaskGenerator.load(mixed)


def test_organs_without_a_tumour_or_outcome(
    tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    schema = LabelSchema(("background", "anterior", "posterior"))
    writer = CohortWriter(tmp_path / "organs", schema, outcome_name=None, channel="MR")
    rng = np.random.default_rng(0)
    for i in range(3):
        data = np.zeros((24, 16, 16), np.uint8)
        data[4:12, 3 + i : 12, 4:12] = 1
        data[12:20, 3 + i : 12, 4:12] = 2
        image = rng.normal(100, 5, data.shape).astype(np.float32)
        writer.add(f"p{i}", Volume(image, np.eye(4)), Volume(data, np.eye(4)))
    generator = train_mask_generator(
        everyone(writer.finish()), longer(tiny_config(0)), tmp_path / "model"
    )
    drawn = generator.sample(4, drawing(), seed=0)
    assert drawn.outcomes.tolist() == [-1] * 4
    assert drawn.redrawn == 0
    assert set(np.unique(drawn.label_maps)) <= {0, 1, 2}
    with pytest.raises(InputError, match="hold no tumour"):
        generator.sample(1, drawing(), seed=0, tumour_volume_mm3=500)


def test_a_held_out_mask_has_no_part_in_it(
    patients: Cohort, tiny_config: Callable[[int], Config], tmp_path: Path
) -> None:
    """Other masks and labels of the held-out cases: the same bytes."""
    names = [case.name for case in patients][4:]
    files = {}
    for what, altered in (("as it is", ()), ("held out", names), ("training", ["patient_0"])):
        cohort = flipped(patients, altered, tmp_path / what)
        training = cohort.subset([case for case in cohort if case.name not in names])
        fold = Fold("fold-0", training, cohort.subset([c for c in cohort if c.name in names]))
        out = tmp_path / f"{what}-model"
        train_mask_generator(fold, tiny_config(0), out)
        files[what] = [(out / part / "model.safetensors").read_bytes() for part in MASK_PARTS]
    assert files["held out"] == files["as it is"]
    for changed, before in zip(files["training"], files["as it is"], strict=True):
        assert changed != before


def flipped(cohort: Cohort, names: Sequence[str], out: Path) -> Cohort:
    """The cohort with masks upside down and labels turned for these cases."""
    writer = CohortWriter(out, cohort.schema, outcome_name="pni", channel="HBP", durable=False)
    for case in cohort:
        image, mask = case.read_with_mask()
        assert case.outcome is not None
        turn = case.name in names
        data = np.ascontiguousarray(mask.data[:, ::-1]) if turn else mask.data
        outcome = 1 - case.outcome if turn else case.outcome
        writer.add(case.name, image, mask.with_data(data), outcome=outcome)
    return writer.finish()
