"""MONAI's networks and schedulers for latent diffusion, at the sizes of its 3D tutorial."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.nets import AutoencoderKL, ControlNet, DiffusionModelUNet, PatchDiscriminator
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from neonet3d.segmentation.convolution import guard_short_grids

LATENT_CHANNELS = 4
N_TIMES, N_STEPS = 1000, 50  # of training and of DDIM
BETAS = {"schedule": "scaled_linear_beta", "beta_start": 0.0015, "beta_end": 0.0195}
CHANNELS = (32, 64, 64)
DOWNSAMPLING = 4
_UNET = {
    "spatial_dims": 3,
    "in_channels": LATENT_CHANNELS,
    "num_res_blocks": 1,
    "channels": CHANNELS,
    "attention_levels": (False, True, True),
    "num_head_channels": (0, 64, 64),
}


def build_autoencoder() -> AutoencoderKL:
    made = AutoencoderKL(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=CHANNELS,
        latent_channels=LATENT_CHANNELS,
        num_res_blocks=1,
        norm_num_groups=16,
        attention_levels=(False, False, True),
    )
    guard_short_grids(made)
    return made


def build_discriminator() -> PatchDiscriminator:
    made = PatchDiscriminator(
        spatial_dims=3, num_layers_d=3, channels=32, in_channels=1, out_channels=1
    )
    guard_short_grids(made)
    return made


def build_unet(n_labels: int) -> DiffusionModelUNet:
    """Args: n_labels: embeddings of labels; 0 for a U-Net that is told none."""
    made = DiffusionModelUNet(
        **_UNET, out_channels=LATENT_CHANNELS, num_class_embeds=n_labels or None
    )
    guard_short_grids(made)
    return made


def build_controlnet(unet: DiffusionModelUNet, n_masks: int, n_labels: int) -> ControlNet:
    """With the weights of a U-Net where they have the same names; it ends in zeros."""
    made = ControlNet(
        **_UNET,
        num_class_embeds=n_labels or None,
        conditioning_embedding_in_channels=n_masks,
        conditioning_embedding_num_channels=(16,),
    )
    made.load_state_dict(unet.state_dict(), strict=False)
    guard_short_grids(made)
    return made


def ddpm() -> DDPMScheduler:
    """For training."""
    return DDPMScheduler(N_TIMES, clip_sample=False, **BETAS)


def ddim() -> tuple[DDIMScheduler, list[int]]:
    """For sampling, with times as far apart as ``DDIMScheduler.step`` goes back."""
    scheduler = DDIMScheduler(N_TIMES, clip_sample=False, **BETAS)
    scheduler.set_timesteps(N_STEPS)
    return scheduler, list(range(N_TIMES - 1, 0, -(N_TIMES // N_STEPS)))


def padded(z: Float[Tensor, "b c x y z"]) -> Float[Tensor, "b c X Y Z"]:
    """Zeros at the far ends, so that each axis halves twice."""
    ends = [end for n in reversed(z.shape[2:]) for end in (0, -n % 4)]
    return F.pad(z, ends)


def kl(mean: Tensor, sigma: Tensor) -> Float[Tensor, ""]:
    """The tutorial's: summed over the latent, averaged over the batch."""
    terms = mean.square() + sigma.square() - sigma.square().log() - 1
    loss: Tensor = 0.5 * terms.sum((1, 2, 3, 4)).mean()
    return loss


def freeze(network: nn.Module) -> None:
    network.eval().requires_grad_(False)
