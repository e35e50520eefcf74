from __future__ import annotations

from dataclasses import replace

import torch

from neonet3d.cohort.patches import Patches
from neonet3d.generation.controlnet import one_hot
from neonet3d.generation.rivals.batches import TrainingSet, fractions, label_vector


def test_image_mask_and_label_of_a_case_stay_together(patches: Patches) -> None:
    """Images that are their label maps, shifted with them."""
    maps = patches.required_label_maps()
    data = TrainingSet(replace(patches, images=maps.float() / 2), 3, labelled=True)
    torch.manual_seed(0)
    for _ in range(5):
        batch = data.draw(4)
        assert batch.images.shape == (4, 1, 24, 24, 24)
        assert torch.equal(one_hot((2 * batch.images[:, 0]).to(torch.uint8), 3), batch.masks)


def test_a_share_of_the_labels_is_hidden_and_all_without_labels(patches: Patches) -> None:
    rows = torch.arange(6).repeat(2000)
    torch.manual_seed(0)
    told = TrainingSet(patches, 3, labelled=True).labels(rows)
    hidden = told < 0
    assert abs(float(hidden.float().mean()) - 0.1) < 0.01
    assert torch.equal(told[~hidden], patches.outcomes[rows][~hidden])
    assert bool((TrainingSet(patches, 3, labelled=False).labels(rows) == -1).all())


def test_a_label_vector_is_zero_where_nothing_is_said() -> None:
    assert label_vector(torch.tensor([0, 1, -1]), 2).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert label_vector(torch.tensor([-1, -1]), 0).shape == (2, 0)


def test_a_thin_vein_has_its_share_of_every_block() -> None:
    masks = torch.zeros(1, 1, 8, 8, 8)
    masks[0, 0, :, 3, 3] = 1
    shares = fractions(masks, 4)
    assert shares.shape == (1, 1, 2, 2, 2)
    assert torch.equal(shares[0, 0, :, 0, 0], torch.full((2,), 4 / 64))
    assert float(shares.sum()) == 2 * 4 / 64
    assert fractions(masks, 1) is masks
