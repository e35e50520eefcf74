from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from neonet3d.classification.distances import batch_distances
from neonet3d.classification.features import (
    FrozenFeatures,
    encode_patches,
    encodings_of,
    traits_of,
)
from neonet3d.classification.regions import batch_region_maps, region_names, shrink
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.patches import Orientation, Patches, fit_patches, load_patches
from neonet3d.config import Config
from neonet3d.engine.loop import seeded
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.autoencoder import Encoder
from neonet3d.generation.wavelet import haar

IDENTITY = Orientation((False, False, False), False)
FLIP_X = Orientation((True, False, False), False)


@pytest.fixture(scope="module")
def patches(fold: Fold) -> Patches:
    return load_patches(fold.training, *fit_patches(fold.training))


@pytest.fixture(scope="module")
def encoder(tiny: Config) -> Encoder:
    return seeded(3, lambda: Encoder(tiny.autoencoder)).eval()


def encode(
    encoder: Encoder,
    patches: Patches,
    fold: Fold,
    orientations: list[Orientation],
    *,
    prior: AnatomyPrior | None = None,
    distances: bool = False,
) -> FrozenFeatures:
    """The maps, or with a prior the residual."""
    return encode_patches(
        encoder,
        prior,
        "maps" if prior is None else "residual",
        patches,
        fold.training.schema,
        orientations,
        shell_mm=8,
        distances=distances,
    )


def turned(patches: Patches, orientation: Orientation) -> Patches:
    assert patches.label_maps is not None
    return replace(
        patches,
        images=orientation.apply(patches.images),
        label_maps=orientation.apply(patches.label_maps),
    )


@pytest.mark.parametrize(("shape", "count"), [((16, 16, 8), 16), ((24, 16, 8), 8)])
def test_the_identity_comes_first_and_all_are_different(
    shape: tuple[int, int, int], count: int
) -> None:
    grid = Grid(shape, (2.0, 2.0, 4.0))
    for n in (1, 2, 5, count):
        encodings = encodings_of(grid, n, seed=0)
        assert encodings[0] == IDENTITY
        assert len(set(encodings)) == len(encodings) == n
    assert len(encodings_of(grid, 100, seed=0)) == count


def test_the_seed_draws_the_encodings() -> None:
    grid = Grid((16, 16, 8), (2.0, 2.0, 4.0))
    drawn = [tuple(encodings_of(grid, 4, seed=seed)) for seed in range(8)]
    assert drawn == [tuple(encodings_of(grid, 4, seed=seed)) for seed in range(8)]
    assert len(set(drawn)) > 4
    # More encodings keep those that were drawn before.
    assert tuple(encodings_of(grid, 6, seed=0)[:4]) == drawn[0]


def test_maps_and_regions_lie_on_the_same_grids(
    encoder: Encoder, patches: Patches, fold: Fold, tiny: Config
) -> None:
    features = encode(encoder, patches, fold, [IDENTITY, FLIP_X])
    c, latent = tiny.autoencoder.channels, tiny.autoencoder.latent_channels
    n_regions = len(region_names(fold.training.schema))
    assert (len(features), features.n_encodings) == (8, 2)
    assert features.levels[0].shape == (2, 8, 8 + c, 12, 8, 4)
    assert features.levels[1].shape == (2, 8, 2 * c + latent, 6, 4, 2)
    assert features.regions[0].shape == (2, 8, n_regions, 12, 8, 4)
    assert features.regions[1].shape == (2, 8, n_regions, 6, 4, 2)
    assert features.levels[0].dtype == features.levels[1].dtype == torch.bfloat16
    torch.testing.assert_close(
        features.levels[0][0, :, :8].float(),
        haar(patches.images[:, None]),
        rtol=1e-2,  # bfloat16
        atol=1e-2,
    )


def test_augmentation_comes_before_encoding(encoder: Encoder, patches: Patches, fold: Fold) -> None:
    """The maps of a flipped image are kept; they are not the flipped maps of the image."""
    features = encode(encoder, patches, fold, [IDENTITY, FLIP_X])
    of_flipped = encode(encoder, turned(patches, FLIP_X), fold, [IDENTITY])
    assert torch.equal(features.levels[0][1], of_flipped.levels[0][0])
    assert torch.equal(features.levels[1][1], of_flipped.levels[1][0])
    for maps in features.levels:
        flipped = FLIP_X.apply(maps[0])
        assert float((maps[1] - flipped).float().abs().mean()) > 0.01
    # Anatomy has no sides: its regions turn with the image.
    torch.testing.assert_close(features.regions[0][1], FLIP_X.apply(features.regions[0][0]))
    torch.testing.assert_close(features.regions[1][1], of_flipped.regions[1][0])
    regions = batch_region_maps(patches, fold.training.schema, shell_mm=8)
    torch.testing.assert_close(features.regions[1][0], shrink(regions, 4))


def test_a_batch_is_float32_in_the_order_of_the_network(
    encoder: Encoder, patches: Patches, fold: Fold
) -> None:
    features = encode(encoder, patches, fold, [IDENTITY, FLIP_X])
    batch = features.batch(1, torch.tensor([5, 2, 5]))
    assert [part.dtype for part in batch] == [torch.float32] * 7
    assert [len(part) for part in batch] == [3] * 7
    assert [part.shape[1] for part in batch[2:4]] == [0, 0]  # no distances
    assert batch[-1].shape == (3, 0)  # no anatomy prior was given
    for part, source in zip(
        [*batch[:2], *batch[4:6]],
        (*features.levels, *features.regions),
        strict=True,
    ):
        torch.testing.assert_close(part, source[1, [5, 2, 5]].float())


def test_distances_lie_and_turn_with_the_maps(
    encoder: Encoder, patches: Patches, fold: Fold
) -> None:
    features = encode(encoder, patches, fold, [IDENTITY, FLIP_X], distances=True)
    away = batch_distances(patches, fold.training.schema)
    for found, factor in zip(features.distances, (2, 4), strict=True):
        torch.testing.assert_close(found[0], shrink(away, factor))
        torch.testing.assert_close(found[1], FLIP_X.apply(found[0]))
    batch = features.batch(1, torch.tensor([5, 2]))
    torch.testing.assert_close(batch[2], features.distances[0][1, [5, 2]])


@pytest.fixture(scope="module")
def prior(encoder: Encoder, fold: Fold) -> AnatomyPrior:
    """Of 16 cases, so that it has two factors; unfitted, but for factors of noise."""
    made = AnatomyPrior(fold.training.schema, len(encoder.latent_mean), (6, 4, 2), n_cases=16)
    rng = torch.Generator().manual_seed(0)
    made.factors.copy_(torch.randn(made.factors.shape, generator=rng))
    made.place_mean.copy_(torch.randn(made.place_mean.shape, generator=rng))
    return made


def test_residuals_are_the_latents_without_what_the_anatomy_says(
    encoder: Encoder, patches: Patches, fold: Fold, prior: AnatomyPrior
) -> None:
    turns = [IDENTITY, FLIP_X]
    features = encode(encoder, patches, fold, turns, prior=prior)
    with torch.no_grad():
        latents = encoder(patches.images[:, None])
    expected = latents - prior.place_mean  # its other parts are not fitted
    assert len(features.levels) == len(features.regions) == 1
    torch.testing.assert_close(features.levels[0][0].float(), expected, rtol=0.05, atol=0.05)
    # It is one field, and turns as one, as do the regions.
    assert torch.equal(features.levels[0][1], FLIP_X.apply(features.levels[0][0]))
    torch.testing.assert_close(features.regions[0][1], FLIP_X.apply(features.regions[0][0]))
    assert features.regions[0].shape[-3:] == features.levels[0].shape[-3:] == (6, 4, 2)
    assert [len(part) for part in features.batch(1, torch.tensor([3, 1]))] == [2, 2, 2, 2]


def test_amplitudes_are_those_of_the_patch_as_it_lies(
    encoder: Encoder, patches: Patches, fold: Fold, prior: AnatomyPrior
) -> None:
    found = [
        encode(encoder, patches, fold, turns, prior=prior).amplitudes
        for turns in ([IDENTITY], [IDENTITY, FLIP_X])
    ]
    assert found[0].shape == (8, 2)
    assert torch.equal(*found)
    with torch.no_grad():
        latents = encoder(patches.images[:, None])
    expected = prior.explain(latents, patches.required_label_maps())[1]
    torch.testing.assert_close(found[0], expected, rtol=0.05, atol=0.05)  # bfloat16


def test_traits_tell_noise_and_contrast(encoder: Encoder, patches: Patches) -> None:
    def traits(images: Tensor) -> Tensor:
        with torch.no_grad():
            return traits_of(images, encoder(images[:, None]))

    plain, n = traits(patches.images), len(encoder.latent_mean)
    assert plain.shape == (8, 2 * n + 8)
    noise = torch.randn(patches.images.shape, generator=torch.Generator().manual_seed(0))
    assert bool((traits(patches.images + 0.3 * noise)[:, -7:] > plain[:, -7:]).all())
    assert bool((traits(patches.images / 2)[:, -8:] < plain[:, -8:]).all())
    torch.testing.assert_close(traits(patches.images[2:3]), plain[2:3], rtol=1e-4, atol=1e-4)


def test_without_masks_one_region_serves_every_case(
    encoder: Encoder, patches: Patches, fold: Fold
) -> None:
    bare = replace(patches, label_maps=None)
    features = encode(encoder, bare, fold, [IDENTITY])
    assert features.regions[0].shape == (1, 1, 1, 12, 8, 4)
    batch = features.batch(0, torch.tensor([7, 0]))
    assert [len(part) for part in batch] == [2] * 7
    assert bool((batch[4] == 1).all())


def test_encoding_is_repeatable_and_leaves_the_encoder_alone(
    encoder: Encoder, patches: Patches, fold: Fold
) -> None:
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    first, second = (encode(encoder, patches, fold, [IDENTITY]) for _ in range(2))
    assert torch.equal(first.levels[1], second.levels[1])
    assert not first.levels[1].requires_grad
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
