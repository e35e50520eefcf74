from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch

from neonet3d.cohort.patches import Patches
from neonet3d.generation.rivals import Rival, monai_networks
from neonet3d.generation.rivals.budget import Budget
from neonet3d.generation.rivals.monai_ldm import SHARES, MonaiLDM
from neonet3d.generation.rivals.monai_networks import ddim, kl, padded


@pytest.fixture
def ldm(trained: Callable[[str], Rival]) -> MonaiLDM:
    rival = trained("monai-ldm")
    assert isinstance(rival, MonaiLDM)
    return rival


def test_the_parts_share_the_whole_budget() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)


def test_the_autoencoder_learns(
    patches: Patches, build: Callable[..., Rival], steps: Callable[[int], Budget]
) -> None:
    class AutoencoderAlone(Budget):
        def __init__(self, n: int) -> None:
            super().__init__(1.0)
            self.n = n

        def steps(self, share: float) -> Iterator[int]:
            return iter(range(self.n if share == SHARES["autoencoder"] else 1))

    rival = build("monai-ldm")
    at_first = rival.train(patches, AutoencoderAlone(1), seed=0)
    later = rival.train(patches, AutoencoderAlone(8), seed=0)
    assert later.steps == {"autoencoder": 8, "unet": 1, "controlnet": 1}
    assert later.losses["autoencoder"] < 0.8 * at_first.losses["autoencoder"]


def test_latents_have_unit_variance_over_the_training_set(ldm: MonaiLDM, patches: Patches) -> None:
    latents = ldm._encoded(patches.images) * ldm.scale
    assert latents.shape == (6, 4, 6, 6, 6)
    assert float(latents.std()) == pytest.approx(1, abs=1e-3)


def test_an_untrained_controlnet_leaves_the_u_net_as_it_is(ldm: MonaiLDM) -> None:
    torch.manual_seed(0)
    untrained = monai_networks.build_controlnet(ldm.unet, 2, 3).eval()
    kept, ldm.controlnet = ldm.controlnet, untrained
    x, times, labels = torch.randn(1, 4, 8, 8, 8), torch.tensor([500]), torch.tensor([1])
    with torch.no_grad():
        alone = ldm.predict(x, times, labels, None)
        told = ldm.predict(x, times, labels, torch.rand(1, 2, 8, 8, 8))
        ldm.controlnet = kept
        taught = ldm.predict(x, times, labels, torch.rand(1, 2, 8, 8, 8))
    torch.testing.assert_close(told, alone)
    assert not torch.allclose(taught, alone, atol=1e-6)


def test_latents_are_padded_until_they_halve_twice() -> None:
    z = torch.ones(1, 1, 6, 8, 10)
    assert padded(z).shape == (1, 1, 8, 8, 12)
    assert torch.equal(padded(z)[:, :, :6, :8, :10], z)
    assert float(padded(z).sum()) == float(z.sum())


def test_ddim_s_times_lie_as_far_apart_as_its_steps_go_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monai_networks, "N_STEPS", 50)
    scheduler, times = ddim()
    assert len(times) == scheduler.num_inference_steps == 50
    assert (times[0], times[-1]) == (999, 19)
    assert {a - b for a, b in pairwise(times)} == {20}


def test_kl_of_normal_posteriors() -> None:
    ones = torch.ones(3, 4, 2, 2, 2)
    assert float(kl(0 * ones, ones)) == 0
    assert float(kl(ones, ones)) == pytest.approx(0.5 * 32)
