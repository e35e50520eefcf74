"""The rival of ``bench/generator.py``: MONAI's latent diffusion with a ControlNet, mended.

Networks and sizes are those of MONAI's 3D latent diffusion tutorial: ``AutoencoderKL`` (32, 64,
64), one residual block a level, attention in the lowest; ``DiffusionModelUNet`` (32, 64, 64), one
residual block, attention in the lower two levels; ``ControlNet`` copied from it. Ours: 4 latents.

What is mended, each in the rival's favour: the scale factor is 1 / standard deviation over the
whole training set (the tutorial takes the first batch's); latents whose axes do not halve twice
are padded, as ``ControlNetLatentDiffusionInferer`` does with ``ldm_latent_shape``, but the mask is
padded too instead of stretched; DDIM's steps are spaced evenly by the whole steps that
``DDIMScheduler.step`` goes back (``set_timesteps`` spaces them by another amount); predictions are
not clipped; the training set is encoded once (posterior means), not at each step; gradients that
oneDNN gets wrong in bf16 on short grids are taken in float32; and the perceptual loss, which needs
weights from the network, is left out with the time it would take.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import AutoencoderKL, ControlNet, DiffusionModelUNet
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neonet3d.engine.device import fabric
from neonet3d.engine.loop import seeded
from neonet3d.generation.rivals.monai_networks import (
    LATENT_CHANNELS,
    N_TIMES,
    build_autoencoder,
    build_controlnet,
    build_discriminator,
    build_unet,
    ddim,
    ddpm,
    kl,
    padded,
)

LEARNING_RATE = 1e-4  # of the autoencoder, its discriminator and the diffusion, as the tutorials
KL_WEIGHT, ADVERSARIAL_WEIGHT, WARMUP_EPOCHS, BATCH = 1e-6, 0.01, 5, 2
DIFFUSION_BATCH = 8  # as ours


def precision(bf16: bool) -> AbstractContextManager[object]:
    """bf16 autocast, or float32 as the tutorials run on a CPU."""
    device = fabric().device.type
    return torch.autocast(device, dtype=torch.bfloat16) if bf16 else nullcontext()


class AutoencoderTraining:
    """The tutorial's step: generator, then discriminator, which joins after the warm-up."""

    def __init__(self, n_cases: int, *, bf16: bool) -> None:
        here = fabric()
        self.bf16, self.warmup = bf16, WARMUP_EPOCHS * max(1, n_cases // BATCH)
        self.model = here.to_device(seeded(0, build_autoencoder))
        self.judge = here.to_device(build_discriminator())
        self.adversarial = PatchAdversarialLoss(criterion="least_squares")
        self.optimiser = torch.optim.Adam(self.model.parameters(), LEARNING_RATE)
        self.judge_optimiser = torch.optim.Adam(self.judge.parameters(), LEARNING_RATE)
        self.steps = 0

    def step(self, images: Tensor) -> None:
        """One batch (b, 1, x, y, z)."""
        judged = self.steps >= self.warmup
        self.steps += 1
        self.optimiser.zero_grad(set_to_none=True)
        with precision(self.bf16):
            drawn, mean, sigma = self.model(images)
            loss = F.l1_loss(drawn.float(), images) + KL_WEIGHT * kl(mean.float(), sigma.float())
            if judged:
                loss = loss + ADVERSARIAL_WEIGHT * self._verdict(drawn, real=True, judging=False)
        loss.backward()
        self.optimiser.step()
        if judged:
            self.judge_optimiser.zero_grad(set_to_none=True)
            with precision(self.bf16):
                fake = self._verdict(drawn.detach(), real=False, judging=True)
                true = self._verdict(images, real=True, judging=True)
            (ADVERSARIAL_WEIGHT * 0.5 * (fake + true)).backward()
            self.judge_optimiser.step()

    def _verdict(self, images: Tensor, *, real: bool, judging: bool) -> Tensor:
        logits = self.judge(images.contiguous())[-1].float()
        loss: Tensor = self.adversarial(logits, target_is_real=real, for_discriminator=judging)
        return loss


@torch.no_grad()
def psnr_db(model: AutoencoderKL, images: Tensor, *, bf16: bool) -> float:
    """Of reconstructions (from posterior means) of images (n, x, y, z) in [-1, 1], peak 2."""
    model.eval()
    error = 0.0
    with precision(bf16):
        for part in images.split(BATCH):
            x = fabric().to_device(part)[:, None]
            error += float((model.reconstruct(x).float() - x).square().sum())
    model.train()
    return float(10 * torch.log10(torch.tensor(4 * images.numel() / error)))


def train_autoencoder(
    images: Tensor,
    held_out: Tensor,
    *,
    target_db: float,
    minutes: float,
    bf16: bool,
    every_seconds: float,
) -> tuple[AutoencoderKL, list[tuple[float, float]]]:
    """Train until the held-out PSNR reaches the target, or the minutes are over.

    The seconds are those of training steps: measuring does not count.

    Returns:
        The model, and (seconds, held-out PSNR in dB) every so often.
    """
    torch.manual_seed(0)
    training = AutoencoderTraining(len(images), bf16=bf16)
    generator = torch.Generator().manual_seed(0)
    seconds, curve = 0.0, [(0.0, psnr_db(training.model, held_out, bf16=bf16))]
    while seconds < 60 * minutes and curve[-1][1] < target_db:
        started = time.perf_counter()
        until = min(every_seconds, 60 * minutes - seconds)
        while time.perf_counter() - started < until:
            rows = torch.randint(len(images), (BATCH,), generator=generator)
            training.step(fabric().to_device(images[rows])[:, None])
        seconds += time.perf_counter() - started
        curve.append((seconds, psnr_db(training.model, held_out, bf16=bf16)))
    return training.model.eval().requires_grad_(False), curve


@dataclass
class LatentDiffusion:
    """MONAI's three networks and the numbers between them; draws images for label maps."""

    autoencoder: AutoencoderKL
    unet: DiffusionModelUNet
    controlnet: ControlNet
    n_classes: int
    labelled: bool
    scale: float

    @classmethod
    def build(cls, autoencoder: AutoencoderKL, n_classes: int, labelled: bool) -> LatentDiffusion:
        here, n_labels = fabric(), 2 if labelled else 0
        torch.manual_seed(0)
        unet = build_unet(n_labels)
        controlnet = build_controlnet(unet, n_classes, n_labels)
        for part in (autoencoder, unet, controlnet):
            here.to_device(part)
        return cls(autoencoder, unet, controlnet, n_classes, labelled, scale=1.0)

    def save(self, path: Path) -> None:
        tensors = {
            f"{name}.{key}": value.contiguous().cpu().clone()
            for name, part in self._parts().items()
            for key, value in part.state_dict().items()
        }
        save_file(tensors | {"scale": torch.tensor(self.scale)}, path)

    def restore(self, path: Path) -> LatentDiffusion:
        tensors = load_file(path)
        for name, part in self._parts().items():
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(name)}
            part.load_state_dict(own)
            part.eval().requires_grad_(False)
        self.scale = float(tensors["scale"])
        return self

    def _parts(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder, "unet": self.unet, "controlnet": self.controlnet}

    def condition(self, label_maps: Tensor, shape: tuple[int, ...]) -> Tensor:
        """One-hot masks at the latent's size, nearest voxel, padded as the latent is."""
        hot = F.one_hot(label_maps.long(), self.n_classes).movedim(-1, 1).float()
        return padded(F.interpolate(hot, shape))

    def predict(self, x: Tensor, t: Tensor, condition: Tensor | None, labels: Tensor) -> Tensor:
        """The noise in x; without a condition, by the U-Net alone."""
        given = labels if self.labelled else None
        if condition is None:
            return self.unet(x, t, class_labels=given).float()
        down, middle = self.controlnet(x, t, condition, class_labels=given)
        return self.unet(
            x,
            t,
            class_labels=given,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        ).float()

    @torch.inference_mode()
    def sample(
        self, label_maps: Tensor, labels: Tensor, *, seed: int, batch: int, bf16: bool
    ) -> Tensor:
        """DDIM-50 images (n, x, y, z) on the CPU for label maps (n, x, y, z) and labels (n,)."""
        here, generator = fabric(), torch.Generator().manual_seed(seed)
        scheduler, times_back = ddim()
        images = []
        for maps, wanted in zip(label_maps.split(batch), labels.split(batch), strict=True):
            maps, wanted = here.to_device(maps), here.to_device(wanted)
            shape = tuple(n // 4 for n in maps.shape[1:])
            condition = self.condition(maps, shape)
            noise = torch.randn(
                len(maps), LATENT_CHANNELS, *condition.shape[2:], generator=generator
            )
            x = here.to_device(noise)
            with precision(bf16):
                for t in times_back:
                    times = torch.full((len(x),), t, device=x.device)
                    x, _ = scheduler.step(self.predict(x, times, condition, wanted), t, x)
                z = x[..., : shape[0], : shape[1], : shape[2]] / self.scale
                images.append(self.autoencoder.decode_stage_2_outputs(z)[:, 0].float().cpu())
        return torch.cat(images).clamp(-1, 1)


def train_diffusion(
    model: LatentDiffusion,
    images: Tensor,
    maps: Tensor,
    labels: Tensor,
    *,
    seconds: float,
    bf16: bool,
) -> dict[str, float]:
    """Train U-Net, then ControlNet on the frozen U-Net, half of the seconds each; record steps."""
    here = fabric()
    with torch.no_grad():
        parts = (
            model.autoencoder.encode(here.to_device(p)[:, None])[0] for p in images.split(BATCH)
        )
        latents = torch.cat([part.cpu() for part in parts])
    model.scale = float(1 / latents.std())
    shape, latents = tuple(latents.shape[2:]), padded(latents * model.scale)
    scheduler = ddpm()
    record: dict[str, float] = {"scale": model.scale}
    for name, part in (("unet", model.unet), ("controlnet", model.controlnet)):
        if name == "controlnet":
            model.controlnet.load_state_dict(model.unet.state_dict(), strict=False)
            model.unet.eval().requires_grad_(False)
        optimiser = torch.optim.Adam(part.parameters(), LEARNING_RATE)
        steps, losses = 0, 0.0
        for rows in _batches(len(latents), seconds / 2):
            z, given = here.to_device(latents[rows]), here.to_device(labels[rows])
            noise, t = torch.randn_like(z), torch.randint(N_TIMES, (len(z),), device=z.device)
            with precision(bf16):
                condition = None
                if name == "controlnet":
                    condition = model.condition(here.to_device(maps[rows]), shape)
                drawn = model.predict(scheduler.add_noise(z, noise, t), t, condition, given)
                loss = F.mse_loss(drawn, noise)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            steps, losses = steps + 1, losses + float(loss.detach())
        record |= {f"{name}_steps": steps, f"{name}_mean_loss": losses / max(1, steps)}
        part.eval().requires_grad_(False)
    return record


def _batches(n: int, seconds: float) -> Iterator[Tensor]:
    generator, started = torch.Generator().manual_seed(0), time.perf_counter()
    while time.perf_counter() - started < seconds:
        yield torch.randint(n, (DIFFUSION_BATCH,), generator=generator)
