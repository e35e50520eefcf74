"""LatentFlow: autoencoder, anatomy prior, U-Net and ControlNet together, and how to load them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from neonet3d.config import (
    AutoencoderConfig,
    ControlNetConfig,
    SamplerConfig,
    SamplerName,
    UNetConfig,
)
from neonet3d.engine.artefact import ArtefactCard, load_weights, read_card
from neonet3d.engine.device import fabric, ready_for_inference
from neonet3d.errors import InputError
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.appearance import Amplitudes
from neonet3d.generation.autoencoder import DOWNSAMPLING, Autoencoder
from neonet3d.generation.condition import N_SCALES, Condition
from neonet3d.generation.controlnet import ControlNet, class_fractions
from neonet3d.generation.flow import Velocity, euler, exponential, guided, heun
from neonet3d.generation.refiner import Refiner
from neonet3d.generation.tiles import decode_tiled
from neonet3d.generation.unet import FlowUNet
from neonet3d.types import ImageBatch, LabelBatch, LatentBatch, Shape


class LatentFlow(nn.Module):
    """What draws smooth patches: all of NeoGen but the detail decoder.

    ``refiner`` is the identity until it is given its weights.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        anatomy: AnatomyPrior,
        unet: FlowUNet,
        controlnet: ControlNet,
        card: ArtefactCard,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.anatomy = anatomy
        self.unet = unet
        self.controlnet = controlnet
        self.refiner = Refiner(len(card.classes))
        self.card = card

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Load the parts of a folder but refiner and detail; check that they belong together.

        Raises:
            InputError: a part is missing, damaged, or was trained on another part.
        """
        folder = Path(folder)
        autoencoder, parent = load_autoencoder(folder / "autoencoder")
        anatomy, anatomy_card = load_anatomy(folder / "anatomy", parent)
        unet, unet_card = load_unet(folder / "unet", parent, anatomy_card)
        card = read_card(folder / "controlnet", kind="ControlNet")
        require_parent(folder / "controlnet", card, "unet", unet_card)
        controlnet = ControlNet(unet, len(card.classes), card.settings(ControlNetConfig).guidance)
        load_weights(folder / "controlnet", controlnet, card)
        model = cls(autoencoder, anatomy, unet, controlnet, card).eval()
        for network in (autoencoder, unet, controlnet):
            ready_for_inference(network)
        fabric().to_device(model)
        return model

    @torch.inference_mode()
    def decoded(
        self,
        noise: LatentBatch,
        maps: LabelBatch,
        condition: Condition,
        amplitudes: Amplitudes,
        *,
        steps: int,
        method: SamplerName = "exponential",
        guidance: float = 1.0,
        mask_guidance: float = 1.0,
        start: float = 1.0,
        refined: bool = True,
    ) -> ImageBatch:
        """Integrate from noise at t = ``start``, decode and refine. All on the device.

        Args:
            amplitudes: how the patients look (``AnatomyPrior``).
            refined: False where the noise is a patient's own (``noise_of``): the refiner takes out
                grain that random noise leaves, and there would take out the patient's detail.
        """
        with fabric().autocast():
            gaussian = self.unet.gaussian
            excess = self.excess(maps, condition, guidance=guidance, mask_guidance=mask_guidance)
            match method:
                case "exponential":
                    residual = exponential(excess, gaussian, noise, steps, start)
                case "euler":
                    residual = euler(
                        lambda x, t: gaussian(x, t) + excess(x, t), noise, steps, start
                    )
                case "heun":
                    residual = heun(lambda x, t: gaussian(x, t) + excess(x, t), noise, steps, start)
            latent = self.anatomy.restore(residual, maps, amplitudes)
            image = decode_tiled(self.autoencoder, latent).float()
            return self.refiner(image, maps) if refined else image

    @torch.inference_mode()
    def noise_of(
        self, residual: LatentBatch, maps: LabelBatch, condition: Condition, *, steps: int
    ) -> LatentBatch:
        """The noise that ``decoded`` would draw this residual from: the flow, run backwards."""
        with fabric().autocast():
            excess = self.excess(maps, condition, guidance=1.0, mask_guidance=1.0)
            return exponential(excess, self.unet.gaussian, residual, steps, start=0, end=1)

    @torch.inference_mode()
    def redraw(
        self,
        residual: LatentBatch,
        maps: LabelBatch,
        condition: Condition,
        amplitudes: Amplitudes,
        *,
        start: float,
        sampler: SamplerConfig,
        generator: torch.Generator,
    ) -> ImageBatch:
        """Noise the residual of a latent up to t = ``start`` and draw it again. All on the device.

        SDEdit (Meng et al. 2021, arXiv 2108.01073). The sampler's steps are for the whole way from
        t = 1.
        """
        noise = torch.randn(residual.shape, generator=generator).to(residual.device)
        noised = (1 - start) * residual + start * noise
        settings = sampler.model_dump() | {"steps": math.ceil(start * sampler.steps)}
        return self.decoded(noised, maps, condition, amplitudes, start=start, **settings)

    def excess(
        self, maps: LabelBatch, wanted: Condition, *, guidance: float, mask_guidance: float
    ) -> Velocity:
        """dx/dt = u + a (m - u) + b (c - m), guided by mask and label apart, minus the Gaussian's.

        Brooks et al. 2023 (arXiv 2211.09800, eq. 3).

        u knows neither, m the mask, c both. What a weight of 1 makes needless is not computed. What
        guidance the ControlNet has learned is in m and c already; a comes on top.
        """
        wanted = wanted.with_mask(class_fractions(maps, self.controlnet.n_classes))
        nothing, hint = wanted.without_label(), self.controlnet.hint_of(maps)

        def guided_excess(x: Tensor, t: Tensor) -> Tensor:
            both = self.unet.excess(x, t, wanted, self.controlnet(x, t, wanted, hint))
            if guidance == mask_guidance == 1:
                return both
            mask = self.unet.excess(x, t, nothing, self.controlnet(x, t, nothing, hint))
            if mask_guidance == 1:
                return guided(both, mask, guidance)
            neither = self.unet.excess(x, t, nothing.without_mask())
            return guided(mask, neither, mask_guidance) + guidance * (both - mask)

        return guided_excess


def build_autoencoder(card: ArtefactCard) -> Autoencoder:
    """An untrained autoencoder of this card's settings."""
    return Autoencoder(card.settings(AutoencoderConfig))


def load_autoencoder(folder: Path) -> tuple[Autoencoder, ArtefactCard]:
    """A trained autoencoder, frozen, on the device."""
    card = read_card(folder, kind="Autoencoder")
    model = build_autoencoder(card)
    load_weights(folder, model, card)
    fabric().to_device(model)
    return model.eval().requires_grad_(False), card


def load_anatomy(folder: Path, parent: ArtefactCard) -> tuple[AnatomyPrior, ArtefactCard]:
    """The anatomy prior of this autoencoder, on the device."""
    card = read_card(folder, kind="AnatomyPrior")
    require_parent(folder, card, "autoencoder", parent)
    model = build_anatomy(card, parent)
    load_weights(folder, model, card)
    fabric().to_device(model)
    return model.eval(), card


def build_anatomy(card: ArtefactCard, parent: ArtefactCard) -> AnatomyPrior:
    """An unfitted anatomy prior of this card's classes and number of cases."""
    channels = parent.config["latent_channels"]
    return AnatomyPrior(card.schema_, channels, latent_shape(parent), len(card.training_cases))


def load_unet(
    folder: Path, parent: ArtefactCard, anatomy: ArtefactCard
) -> tuple[FlowUNet, ArtefactCard]:
    """A trained flow U-Net on this autoencoder and anatomy prior, frozen."""
    card = read_card(folder, kind="FlowUNet")
    require_parent(folder, card, "anatomy", anatomy)
    config = card.settings(UNetConfig)
    model = FlowUNet(
        parent.config["latent_channels"],
        latent_shape(parent),
        config,
        N_SCALES,
        len(card.classes) - 1,
    )
    load_weights(folder, model, card)
    fabric().to_device(model)
    return model.eval().requires_grad_(False), card


def latent_shape(card: ArtefactCard) -> Shape:
    """Voxels of the latent of a part's grid."""
    x, y, z = (n // DOWNSAMPLING for n in card.grid.shape)
    return (x, y, z)


def require_parent(folder: Path, card: ArtefactCard, name: str, parent: ArtefactCard) -> None:
    if card.parents.get(name) != parent.weights_sha256:
        raise InputError(
            f"{folder} was trained on another {name} than the one beside it. "
            "Keep the parts of one training together."
        )
