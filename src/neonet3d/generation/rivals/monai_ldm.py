"""MONAI's latent diffusion with a ControlNet, its own networks and schedulers, mended.

From MONAI's 3D latent diffusion tutorial: ``AutoencoderKL`` (32, 64, 64) with attention in the
lowest level, L1, KL (weight 1e-6) and a patch discriminator (0.01) after five epochs;
``DiffusionModelUNet`` (32, 64, 64); 1000 times, scaled linear betas; Adam with 1e-4. From its
ControlNet tutorial: ``ControlNet`` copied from the U-Net, which then is frozen. Sampling: DDIM, 50
steps.

What is mended, each in the rival's favour:

- The scale factor is 1 / standard deviation over the training set (the tutorial takes the first
  batch's), and the decoder gets it back.
- Latents whose axes do not halve twice are padded, as ``ControlNetLatentDiffusionInferer`` does
  with ``ldm_latent_shape``; the mask is padded too instead of stretched, and its classes'
  fractions in each latent voxel are given, where nearest neighbours lose a thin vein.
- DDIM's times lie as far apart as ``DDIMScheduler.step`` goes back; predictions are not clipped.
- Posterior means of the training set are encoded once, not at each step; so its latents are of
  unshifted patches, which is the one thing here that is not in its favour alone.
- KL and losses are in float32; gradients that oneDNN gets wrong in bf16 are too.

Ours: 4 latent channels; no perceptual loss, which needs weights from the network; the outcome as a
class embedding (0, 1, not said), of which a tenth is hidden; the budget: 0.4 of the seconds for the
autoencoder, 0.3 each for U-Net and ControlNet, since none of it is of use without the others.
Encoding counts as the U-Net's time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import AutoencoderKL, ControlNet, DiffusionModelUNet
from torch import Tensor, nn

from neonet3d.engine.device import fabric
from neonet3d.generation.controlnet import one_hot
from neonet3d.generation.rivals.batches import N_LABELS, TrainingSet, fractions
from neonet3d.generation.rivals.budget import Part
from neonet3d.generation.rivals.layers import descend, frozen
from neonet3d.generation.rivals.monai_networks import (
    DOWNSAMPLING,
    LATENT_CHANNELS,
    N_TIMES,
    build_autoencoder,
    build_controlnet,
    build_discriminator,
    build_unet,
    ddim,
    ddpm,
    freeze,
    kl,
    padded,
)
from neonet3d.generation.rivals.rival import Rival, draw_noise
from neonet3d.types import ImageBatch, LatentBatch, OneHotBatch

SHARES = {"autoencoder": 0.4, "unet": 0.3, "controlnet": 0.3}
LEARNING_RATE = 1e-4  # of all, as the tutorials
KL_WEIGHT, ADVERSARIAL_WEIGHT, WARMUP_EPOCHS, BATCH = 1e-6, 0.01, 5, 2
DIFFUSION_BATCH = 8


class MonaiLDM(Rival):
    """MONAI's latent diffusion with a ControlNet; see the module."""

    name = "monai-ldm"
    autoencoder: AutoencoderKL
    unet: DiffusionModelUNet
    controlnet: ControlNet
    scale: float

    def _parts(self, data: TrainingSet) -> Iterator[Part]:
        here, n_labels = fabric(), N_LABELS + 1 if self.labelled else 0
        training = AutoencoderTraining(data)
        self.autoencoder = training.model
        self.unet = here.to_device(build_unet(n_labels))
        yield Part("autoencoder", SHARES["autoencoder"], training.step)
        freeze(self.autoencoder)
        latents = self._encoded(data.patches.images)
        self.scale = float(1 / latents.std())
        latents = padded(latents * self.scale)
        diffusion = DiffusionTraining(self, "unet", data, latents)
        yield Part("unet", SHARES["unet"], diffusion.step)
        freeze(self.unet)
        self.controlnet = here.to_device(build_controlnet(self.unet, self.n_masks, n_labels))
        control = DiffusionTraining(self, "controlnet", data, latents)
        yield Part("controlnet", SHARES["controlnet"], control.step)
        freeze(self.controlnet)

    def _encoded(self, images: Float[Tensor, "n x y z"]) -> LatentBatch:
        """Posterior means, on the CPU."""
        here = fabric()
        with torch.no_grad(), here.autocast():
            means = [
                self.autoencoder.encode(here.to_device(part)[:, None])[0].float().cpu()
                for part in images.split(BATCH)
            ]
        return torch.cat(means)

    def predict(
        self,
        x: LatentBatch,
        times: Int[Tensor, " b"],
        labels: Int[Tensor, " b"],
        shares: OneHotBatch | None,
    ) -> LatentBatch:
        """The noise in x; without the masks' fractions by the U-Net alone."""
        told = torch.where(labels < 0, N_LABELS, labels) if self.labelled else None
        if shares is None:
            noise: Tensor = self.unet(x, times, class_labels=told)
            return noise.float()
        down, middle = self.controlnet(x, times, shares, class_labels=told)
        noise = self.unet(
            x,
            times,
            class_labels=told,
            down_block_additional_residuals=tuple(down),
            mid_block_additional_residual=middle,
        )
        return noise.float()

    def _draw(
        self, masks: OneHotBatch, labels: Int[Tensor, " b"], generator: torch.Generator
    ) -> ImageBatch:
        scheduler, times = ddim()
        shares = padded(fractions(masks, DOWNSAMPLING))
        x = draw_noise((len(labels), LATENT_CHANNELS, *shares.shape[2:]), generator)
        with fabric().autocast():
            for time in times:
                now = torch.full((len(x),), time, device=x.device)
                x, _ = scheduler.step(self.predict(x, now, labels, shares), time, x)
            a, b, c = (n // DOWNSAMPLING for n in self.shape)
            drawn: Tensor = self.autoencoder.decode_stage_2_outputs(x[..., :a, :b, :c] / self.scale)
        return drawn


class AutoencoderTraining:
    """The tutorial's step: generator, then discriminator, which joins after the warm-up."""

    def __init__(self, data: TrainingSet) -> None:
        here = fabric()
        self.data, self.taken = data, 0
        self.warmup = WARMUP_EPOCHS * max(1, len(data.patches) // BATCH)
        self.model = here.to_device(build_autoencoder()).train()
        self.judge = here.to_device(build_discriminator()).train()
        self.adversarial = PatchAdversarialLoss(criterion="least_squares")
        self.optimiser = torch.optim.Adam(self.model.parameters(), LEARNING_RATE)
        self.judging = torch.optim.Adam(self.judge.parameters(), LEARNING_RATE)

    def step(self) -> dict[str, Tensor]:
        images, judged = self.data.draw(BATCH).images, self.taken >= self.warmup
        self.taken += 1
        with fabric().autocast(), frozen(self.judge):
            drawn, mean, sigma = self.model(images)
            error = F.l1_loss(drawn.float(), images)
            loss = error + KL_WEIGHT * kl(mean.float(), sigma.float())
            if judged:
                loss = loss + ADVERSARIAL_WEIGHT * self._verdict(drawn, real=True, judging=False)
        descend(self.optimiser, loss)
        if judged:
            with fabric().autocast():
                fake = self._verdict(drawn.detach(), real=False, judging=True)
                true = self._verdict(images, real=True, judging=True)
            descend(self.judging, ADVERSARIAL_WEIGHT * 0.5 * (fake + true))
        return {"autoencoder": error}

    def _verdict(self, images: ImageBatch, *, real: bool, judging: bool) -> Tensor:
        logits = self.judge(images.contiguous())[-1].float()
        loss: Tensor = self.adversarial(logits, target_is_real=real, for_discriminator=judging)
        return loss


class DiffusionTraining:
    """Steps of the U-Net, or of the ControlNet beside it, on latents (n, c, x, y, z).

    Args:
        name: of the network; the ControlNet alone sees the masks.
    """

    def __init__(
        self,
        rival: MonaiLDM,
        name: Literal["unet", "controlnet"],
        data: TrainingSet,
        latents: LatentBatch,
    ) -> None:
        self.rival, self.name, self.data, self.latents = rival, name, data, latents
        network: nn.Module = getattr(rival, name)
        self.optimiser = torch.optim.Adam(network.train().parameters(), LEARNING_RATE)
        self.scheduler = ddpm()

    def step(self) -> dict[str, Tensor]:
        here, rows = fabric(), torch.randint(len(self.latents), (DIFFUSION_BATCH,))
        z, labels = here.to_device(self.latents[rows]), here.to_device(self.data.labels(rows))
        shares = None
        if self.name == "controlnet":
            maps = here.to_device(self.data.patches.required_label_maps()[rows])
            shares = padded(fractions(one_hot(maps, self.rival.n_classes), DOWNSAMPLING))
        noise, times = torch.randn_like(z), torch.randint(N_TIMES, (len(z),), device=z.device)
        with here.autocast():
            x = self.scheduler.add_noise(z, noise, times)
            loss = F.mse_loss(self.rival.predict(x, times, labels, shares), noise)
        descend(self.optimiser, loss)
        return {self.name: loss}
