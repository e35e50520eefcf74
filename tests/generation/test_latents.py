from __future__ import annotations

from typing import Any

import torch

from neonet3d.engine.device import fabric
from neonet3d.generation.latents import (
    FoldLatents,
    explain_latents,
    n_views,
    rows_of_views,
    standardised_latents,
)


def test_every_case_in_every_position(trained: Any) -> None:
    """Row v * n + i is case i in position v; the first position is where it lies."""
    data = FoldLatents(trained.fold, trained.folder / "autoencoder")
    latents, label_maps, labels, scales = data.encoded
    n = len(data.patches)
    assert len(latents) == len(label_maps) == len(labels) == n_views(n) * n
    for number, view in enumerate(data.views()):
        rows = slice(number * n, (number + 1) * n)
        assert torch.equal(label_maps[rows], view.required_label_maps())
        assert torch.equal(labels[rows], data.patches.outcomes)
        assert torch.equal(scales[rows], data.patches.log_scale)
        assert torch.equal(latents[rows], standardised_latents(data.model[0], view.images))
    assert torch.equal(label_maps[:n], data.patches.required_label_maps())
    assert not torch.equal(label_maps[n : 2 * n], label_maps[:n])


def test_standardised_over_the_training_fold(trained: Any) -> None:
    data = FoldLatents(trained.fold, trained.folder / "autoencoder")
    model, images = data.model[0], data.patches.images
    with torch.no_grad(), fabric().autocast():
        means = model.encoder.posterior(images[:, None])[0].float()
    latents = standardised_latents(model, images)
    torch.testing.assert_close(latents.mean((0, 2, 3, 4)), torch.zeros(4), rtol=0, atol=0.02)
    torch.testing.assert_close(latents.std((0, 2, 3, 4)), torch.ones(4), rtol=0.02, atol=0)
    statistics = (means.mean((0, 2, 3, 4)), means.std((0, 2, 3, 4)))
    for found, expected in zip(
        (model.encoder.latent_mean, model.encoder.latent_std), statistics, strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_residuals_come_back(trained: Any) -> None:
    data = FoldLatents(trained.fold, trained.folder / "autoencoder")
    latents, label_maps, _, _ = data.encoded
    anatomy = trained.generator.anatomy
    residuals, amplitudes = explain_latents(anatomy, latents, label_maps)
    torch.testing.assert_close(
        anatomy.restore(residuals, label_maps, amplitudes), latents, rtol=1e-3, atol=1e-3
    )


def test_the_fewer_cases_the_more_positions() -> None:
    found = [n_views(n) for n in (1, 50, 128, 256, 512, 1000)]
    assert found == [16, 16, 16, 8, 4, 4]


def test_rows_are_taken_evenly_over_cases_and_positions() -> None:
    few = rows_of_views(128, 16, 256)
    assert torch.bincount(few % 128).tolist() == [2] * 128
    assert (few // 128).unique().tolist() == [0, 8]
    assert rows_of_views(5, 4, 1000).tolist() == list(range(20))  # as many as there are
    many = rows_of_views(1000, 4, 256)
    assert len(many) == 250
    assert many.tolist() == list(range(0, 1000, 4))
