from __future__ import annotations

import numpy as np
import pytest
import torch

from neonet3d.errors import InputError
from neonet3d.generation.mask_statistics import N_NUMBERS, MaskStatistics, tumour_volumes_mm3
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "tumour"))
SPACING_MM = (1.0, 1.0, 2.0)


def training(n: int = 12, *, without: int = 2) -> tuple[MaskStatistics, torch.Tensor]:
    """Livers with tumours of 8 to 48 voxels; outcome 1 for the larger half; some without."""
    maps = np.zeros((n, 16, 16, 8), np.uint8)
    maps[:, 1:15, 1:15, 1:7] = 1
    for i in range(without, n):
        maps[i, 4:6, 4:6, 2 : 3 + (i % 5)] = 2
        maps[i, 4:6, 6:8, 2:5] = 2 if i >= n // 2 else 1
    outcomes = torch.tensor([int(i >= n // 2) for i in range(n)])
    statistics = MaskStatistics(n, 3)
    label_maps = torch.from_numpy(maps)
    statistics.fit(label_maps, outcomes, torch.zeros(n, 3), SCHEMA, SPACING_MM)
    return statistics, label_maps


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_volumes_are_in_mm3_at_the_scale_of_each_map() -> None:
    _, maps = training()
    scale = torch.zeros(len(maps), 3)
    scale[3] = torch.tensor(2.0).log()
    found = tumour_volumes_mm3(maps, SCHEMA, SPACING_MM, scale)
    voxels = (maps == 2).sum((1, 2, 3)).float()
    assert torch.equal(found[:2], torch.zeros(2))
    torch.testing.assert_close(found[4:], voxels[4:] * 2)
    torch.testing.assert_close(found[3], voxels[3] * 2 * 8)
    organs = LabelSchema(("background", "anterior", "posterior"))
    assert torch.equal(tumour_volumes_mm3(maps, organs, SPACING_MM, scale), torch.zeros(12))


def test_conditions_are_those_of_training() -> None:
    statistics, _ = training()
    drawn = statistics.draw(400, seeded(), outcome=1)
    assert (drawn.outcomes == 1).all()
    of_class = statistics.volumes_mm3[statistics.outcomes == 1]
    assert drawn.volumes_mm3.min() >= statistics.volumes_mm3[2:].min()
    assert drawn.volumes_mm3.max() <= statistics.volumes_mm3.max()
    assert float(drawn.volumes_mm3.mean()) == pytest.approx(float(of_class.mean()), rel=0.15)
    assert len(drawn.volumes_mm3.unique()) > 50  # smoothed, not copied
    plain = statistics.draw(600, seeded(1))
    assert float((plain.volumes_mm3 == 0).float().mean()) == pytest.approx(2 / 12, abs=0.05)


def test_a_given_volume_is_that_of_all() -> None:
    statistics, _ = training()
    drawn = statistics.draw(5, seeded(), volume_mm3=20.0)
    assert torch.equal(drawn.volumes_mm3, torch.full((5,), 20.0))


def test_numbers_are_standardised() -> None:
    statistics, _ = training()
    wanted = statistics.draw(1, seeded(), volume_mm3=20.0)
    numbers = statistics.numbers(wanted)
    assert numbers.shape == (1, N_NUMBERS)
    known = statistics.volumes_mm3[2:].log()
    expected = (np.log(20) - known.mean()) / known.std(correction=0)
    torch.testing.assert_close(numbers[0, 0], expected)
    assert numbers[0, 1:].tolist() == [0, 0, 0, 0]


def test_what_training_does_not_have_is_refused() -> None:
    statistics, _ = training()
    for volume in (0.5, 1e6):
        with pytest.raises(InputError, match="those of training have"):
            statistics.draw(1, seeded(), volume_mm3=volume)
    statistics.outcomes.fill_(0)
    with pytest.raises(InputError, match="no case with the outcome 1"):
        statistics.draw(1, seeded(), outcome=1)
    statistics.volumes_mm3.zero_()
    with pytest.raises(InputError, match="hold no tumour"):
        statistics.draw(1, seeded(), volume_mm3=20.0)


def test_stray_pieces_take_the_class_around_them() -> None:
    statistics, maps = training()
    statistics.smallest[2] = 4
    dirty = maps[5].numpy().copy()
    whole = dirty.copy()
    dirty[12, 12, 5] = 2  # a voxel of tumour in the liver
    dirty[12, 5, 4] = 0  # and a hole
    np.testing.assert_array_equal(statistics.cleaned(dirty, SPACING_MM), whole)
    np.testing.assert_array_equal(statistics.cleaned(whole, SPACING_MM), whole)


def test_no_more_pieces_than_training_maps_usually_have() -> None:
    statistics, maps = training()
    twice = maps[5].numpy().copy()
    twice[10:13, 10:13, 2:6] = 2  # larger than the other, which is stray then
    cleaned = statistics.cleaned(twice, SPACING_MM)
    assert (cleaned[4:8, 4:8] == 1)[..., 2:6].all()
    assert (cleaned[10:13, 10:13, 2:6] == 2).all()
