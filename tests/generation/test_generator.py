from __future__ import annotations

import copy
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neonet3d.cohort.patches import load_patches
from neonet3d.engine.device import fabric
from neonet3d.errors import InputError
from neonet3d.generation.condition import N_SCALES, Condition
from neonet3d.generation.controlnet import class_fractions
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.latent_flow import latent_shape

PARTS = ("autoencoder", "anatomy", "unet", "controlnet", "refiner", "detail", "calibration")


@pytest.fixture
def label_maps(trained: Any) -> torch.Tensor:
    card = trained.generator.card
    loaded = load_patches(trained.fold.training, *card.reading)
    return loaded.required_label_maps()


@pytest.fixture
def copied(trained: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.folder, tmp_path / "generator"))


def test_a_copied_folder_draws_the_same(
    trained: Any, copied: Path, label_maps: torch.Tensor
) -> None:
    labels = torch.tensor([0, 1, -1, 0, 1, -1])
    first = trained.generator.sample(label_maps, labels, steps=2, seed=5)
    assert first.shape == label_maps.shape
    assert first.dtype == torch.float32
    assert -1 <= float(first.min()) < float(first.max()) <= 1
    loaded = LatentGenerator.load(copied)
    assert torch.equal(loaded.sample(label_maps, labels, steps=2, seed=5), first)
    assert not torch.equal(loaded.sample(label_maps, labels, steps=2, seed=6), first)


def test_the_image_follows_the_mask(trained: Any, label_maps: torch.Tensor) -> None:
    """The anatomy prior alone puts organs where the mask has them, before any long training."""
    images = trained.generator.sample(label_maps, torch.full((6,), -1), steps=4, seed=0)
    air, liver, tumour = (float(images[label_maps == k].mean()) for k in (0, 1, 3))
    assert air < tumour < liver


def test_each_draw_has_its_own_noise(
    trained: Any, label_maps: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second batch as in the first."""
    monkeypatch.setattr("neonet3d.generation.generator.SAMPLE_BATCH", 4)
    same = label_maps[:1].expand(6, -1, -1, -1)
    images = trained.generator.sample(same, torch.zeros(6, dtype=torch.long), steps=1, seed=0)
    assert len({image.numpy().tobytes() for image in images}) == 6


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_two_trainings_do_not_mix(
    part: str, copied: Path, train_tiny: Callable[[int], Any]
) -> None:
    shutil.rmtree(copied / part)
    shutil.copytree(train_tiny(1).folder / part, copied / part)
    with pytest.raises(InputError, match="trained on another"):
        LatentGenerator.load(copied)


@pytest.mark.parametrize("part", PARTS)
def test_other_weights_are_refused(part: str, copied: Path) -> None:
    path = copied / part / "model.safetensors"
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    with pytest.raises(InputError, match="is not the file that model"):
        LatentGenerator.load(copied)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_missing(part: str, copied: Path) -> None:
    (copied / part / "model.json").unlink()
    with pytest.raises(InputError, match=f"{part} holds no model.json"):
        LatentGenerator.load(copied)


def test_a_card_that_does_not_fit_its_weights(copied: Path) -> None:
    path = copied / "unet" / "model.json"
    card = json.loads(path.read_text())
    card["config"]["channels"] = [16, 16]
    path.write_text(json.dumps(card))
    with pytest.raises(InputError, match="do not fit"):
        LatentGenerator.load(copied)


def test_what_it_was_not_trained_for(trained: Any, label_maps: torch.Tensor) -> None:
    g = trained.generator
    labels = torch.zeros(6, dtype=torch.long)
    with pytest.raises(InputError, match=r"8, 16, 16.* voxels but the generator draws"):
        g.sample(label_maps[:, :8], labels, steps=1, seed=0)
    for bad in (2, 7, -2):
        with pytest.raises(InputError, match=f"label {bad}"):
            g.sample(label_maps, torch.full((6,), bad), steps=1, seed=0)
    card = g.card.model_copy(update={"outcome": None})
    blind = LatentGenerator(g, g.detail, card)
    with pytest.raises(InputError, match="cannot obey a label"):
        blind.sample(label_maps, labels, steps=1, seed=0)
    with pytest.raises(InputError, match="Guidance needs"):
        blind.sample(label_maps, labels - 1, steps=1, seed=0, guidance=2.0)


def test_guidance_pushes_away_from_no_label(trained: Any, label_maps: torch.Tensor) -> None:
    labels = torch.ones(6, dtype=torch.long)
    plain, guided = (
        trained.generator.sample(label_maps, labels, steps=1, seed=0, guidance=scale)
        for scale in (1.0, 50.0)
    )
    assert not torch.equal(plain, guided)
    unsaid = labels - 2
    first, second = (
        trained.generator.sample(label_maps, unsaid, steps=1, seed=0, guidance=scale)
        for scale in (1.0, 3.0)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0.02)


def test_its_hash_covers_all_that_draws(copied: Path) -> None:
    """Another detail decoder of the same autoencoder is another generator; so is another flow."""
    first = LatentGenerator.load(copied).card.weights_sha256
    hashes = {first}
    for part in ("calibration", "detail", "refiner"):
        card = copied / part / "model.json"
        weights = copied / part / "model.safetensors"
        tensors = load_file(weights)
        name = next(iter(tensors))
        tensors[name] = tensors[name] + 1
        save_file(tensors, weights)
        said = json.loads(card.read_text())
        said["weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        card.write_text(json.dumps(said))
        child = copied / "calibration" / "model.json"
        of_child = json.loads(child.read_text())
        of_child["parents"] |= {part: said["weights_sha256"]} if part != "calibration" else {}
        child.write_text(json.dumps(of_child))
        hashes.add(LatentGenerator.load(copied).card.weights_sha256)
    assert len(hashes) == 4


def test_mask_and_label_are_guided_apart(trained: Any, label_maps: torch.Tensor) -> None:
    """Weights of 1 are the conditional velocity, and 0 and 0 would be the U-Net alone."""
    g, n = trained.generator, len(label_maps)
    told = Condition.of(torch.ones(n, dtype=torch.long), torch.zeros(n, N_SCALES))
    told = told.with_mask(class_fractions(label_maps, len(g.card.classes)))
    x = torch.randn(n, 4, *latent_shape(g.card), generator=torch.Generator().manual_seed(1))
    t = torch.full((n,), 0.6)
    with torch.no_grad(), fabric().autocast():
        hint = g.controlnet.hint_of(label_maps)
        both = g.unet(x, t, told, g.controlnet(x, t, told, hint))
        nobody = told.without_label()
        mask = g.unet(x, t, nobody, g.controlnet(x, t, nobody, hint))
        neither = g.unet(x, t, nobody.without_mask())
        for a, b in ((1, 1), (1, 3), (2, 1), (2, 3)):
            excess = g.excess(label_maps, told, guidance=b, mask_guidance=a)(x, t)
            found = g.unet.gaussian(x, t) + excess
            expected = neither + a * (mask - neither) + b * (both - mask)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["euler", "heun", "exponential"])
def test_every_sampler_comes_to_the_same_end(
    method: str, trained: Any, label_maps: torch.Tensor
) -> None:
    labels = torch.ones(6, dtype=torch.long)
    found, fine = (
        trained.generator.sample(label_maps, labels, steps=n, seed=0, method=name)
        for name, n in ((method, 16), ("heun", 64))
    )
    assert float((found - fine).square().mean().sqrt()) < 0.05 * float(fine.std())


def test_psnr(trained: Any) -> None:
    card = trained.generator.card
    images = load_patches(trained.fold.training, *card.reading).images
    ratios = trained.generator.reconstruction_psnr_db(images)
    assert ratios.shape == (len(images),)
    facts = json.loads((trained.folder / "autoencoder" / "model.json").read_text())["facts"]
    pooled = -10 * np.log10((10 ** (-ratios.double().numpy() / 10)).mean())
    assert pooled == pytest.approx(facts["training_psnr_db"], abs=0.01)


def test_nothing_is_left_to_train(trained: Any) -> None:
    frozen = (trained.generator.autoencoder, trained.generator.unet)
    assert not any(p.requires_grad for part in frozen for p in part.parameters())
    assert not any(module.training for module in trained.generator.modules())


def test_the_outcome_decides_how_a_new_case_looks(trained: Any, label_maps: torch.Tensor) -> None:
    """Six patients have no factor, so the prior is given one, of which only class 1 has any."""
    generator = copy.deepcopy(trained.generator)
    anatomy, maps = generator.anatomy, label_maps
    f, c = anatomy.weight.shape
    anatomy.factors = torch.randn(1, f, c, generator=torch.Generator().manual_seed(0))
    anatomy.bank.outcomes.copy_(torch.tensor([0, 0, 0, 1, 1, 1]))
    labels = torch.zeros(len(maps), dtype=torch.long)
    differences = []
    for gap in (0.0, 3.0):
        anatomy.bank.amplitudes = gap * anatomy.bank.outcomes[:, None].float()
        one, other = (generator.sample(maps, labels + y, steps=1, seed=0) for y in (0, 1))
        differences.append(float((one - other).abs().mean()))
    assert differences[1] > 2 * differences[0]
