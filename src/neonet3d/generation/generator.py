"""LatentGenerator: the five parts, from autoencoder to refiner, as one that draws volumes."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from neonet3d.config import AutoencoderConfig, UNetConfig
from neonet3d.engine.artefact import ArtefactCard, load_weights, read_card
from neonet3d.engine.device import fabric
from neonet3d.errors import InputError
from neonet3d.generation.anatomy import AnatomyPrior
from neonet3d.generation.autoencoder import DOWNSAMPLING, Autoencoder
from neonet3d.generation.condition import N_SCALES, Condition
from neonet3d.generation.controlnet import ControlNet
from neonet3d.generation.flow import Velocity, euler, guided
from neonet3d.generation.refiner import Refiner
from neonet3d.generation.texture import ResidualTexture
from neonet3d.generation.unet import FlowUNet
from neonet3d.types import ImageBatch, LabelBatch, LatentBatch, Shape

SAMPLE_BATCH = 16


class LatentGenerator(nn.Module):
    """NeoGen: draws image patches that obey a label map and an outcome label.

    Example:
        >>> generator = LatentGenerator.load("model")                      # doctest: +SKIP
        >>> images = generator.sample(label_maps, labels, steps=16, seed=0)  # doctest: +SKIP
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        anatomy: AnatomyPrior,
        unet: FlowUNet,
        controlnet: ControlNet,
        refiner: Refiner,
        card: ArtefactCard,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.anatomy = anatomy
        self.unet = unet
        self.controlnet = controlnet
        self.refiner = refiner
        self.card = card

    @classmethod
    def load(cls, folder: Path | str) -> LatentGenerator:
        """Load the five parts of a folder and check that they belong together.

        Raises:
            InputError: a part is missing, damaged, or was trained on another part.
        """
        model = cls.load_unrefined(folder)
        path = Path(folder) / "refiner"
        card = read_card(path, kind="Refiner")
        _require_parent(path, card, "controlnet", model.card)
        load_weights(path, model.refiner, card)
        model.card = card
        return model

    @classmethod
    def load_unrefined(cls, folder: Path | str) -> LatentGenerator:
        """The same before a refiner was fitted: its refiner is the identity."""
        folder = Path(folder)
        autoencoder, parent = load_autoencoder(folder / "autoencoder")
        anatomy, anatomy_card = load_anatomy(folder / "anatomy", parent)
        unet, unet_card = load_unet(folder / "unet", parent, anatomy_card)
        card = read_card(folder / "controlnet", kind="ControlNet")
        _require_parent(folder / "controlnet", card, "unet", unet_card)
        controlnet = ControlNet(unet, len(card.classes))
        load_weights(folder / "controlnet", controlnet, card)
        refiner = Refiner(len(card.classes))
        model = cls(autoencoder, anatomy, unet, controlnet, refiner, card).eval()
        fabric().to_device(model)
        return model

    @torch.inference_mode()
    def sample(
        self,
        label_maps: UInt8[Tensor, "n x y z"],
        labels: Int[Tensor, " n"],
        *,
        steps: int,
        seed: int,
        guidance: float = 1.0,
        log_scale: Float[Tensor, "n 3"] | None = None,
    ) -> Float[Tensor, "n x y z"]:
        """Draw one image for each label map.

        Args:
            label_maps: on the generator's grid, with its classes.
            labels: 0 or 1, or -1 for "not said".
            steps: Euler steps of the flow.
            guidance: classifier-free guidance of the label; 1 is none.
            log_scale: of the maps (``Patches.log_scale``); by default all have the grid's spacing.

        Returns:
            Images in [-1, 1] on the CPU; ``card.normaliser.invert`` gives units of the reference.

        Raises:
            InputError: a grid or a label that the generator was not trained for.
        """
        if tuple(label_maps.shape[1:]) != self.card.shape:
            raise InputError(
                f"The label maps are {tuple(label_maps.shape[1:])} voxels but the generator draws "
                f"{self.card.shape}. Bring them onto its grid."
            )
        unknown = labels[(labels < -1) | (labels > 1)]
        if len(unknown):
            raise InputError(
                f"The generator cannot draw the label {int(unknown[0])}. Say 0, 1, or -1 for none."
            )
        if self.card.outcome is None and bool((labels >= 0).any()):
            raise InputError("The generator was trained without outcomes; it cannot obey a label.")
        if guidance != 1 and self.card.outcome is None:
            raise InputError("Guidance needs a generator that was trained with outcomes.")
        here = fabric()
        generator = torch.Generator().manual_seed(seed)
        images = []
        if log_scale is None:
            log_scale = torch.zeros(len(labels), N_SCALES)
        for part in torch.arange(len(labels)).split(SAMPLE_BATCH):
            maps, wanted, scale = (here.to_device(x[part]) for x in (label_maps, labels, log_scale))
            told = Condition.of(wanted, scale)
            channels = self.autoencoder.encoder.latent_mean.numel()
            shape = (len(maps), channels, *latent_shape(self.card))
            noise = here.to_device(torch.randn(shape, generator=generator))
            with here.autocast():
                residual = euler(self._velocity(maps, told, guidance), noise, steps)
                drawn = self.autoencoder.decode(self.anatomy.restore(residual, maps))
            refined = self.refiner(drawn, maps)[:, 0]
            images.append(self.autoencoder.texture.add(refined, generator).cpu())
        return torch.cat(images)

    @torch.inference_mode()
    def redraw(
        self,
        residual: LatentBatch,
        maps: LabelBatch,
        labels: Int[Tensor, " b"],
        log_scale: Float[Tensor, "b 3"],
        *,
        start: float,
        steps: int,
        generator: torch.Generator,
    ) -> ImageBatch:
        """Noise the residual of a latent up to t = ``start`` and draw it again, not refined.

        SDEdit (Meng et al. 2021, arXiv 2108.01073). ``steps`` is for the whole way from t = 1.
        """
        here = fabric()
        residual, maps, labels, log_scale = (
            here.to_device(x) for x in (residual, maps, labels, log_scale)
        )
        noise = here.to_device(torch.randn(residual.shape, generator=generator))
        noised = (1 - start) * residual + start * noise
        with here.autocast():
            velocity = self._velocity(maps, Condition.of(labels, log_scale), 1.0)
            drawn = euler(velocity, noised, math.ceil(start * steps), start)
            return self.autoencoder.decode(self.anatomy.restore(drawn, maps))

    @torch.inference_mode()
    def reconstruction_psnr_db(self, images: Float[Tensor, "n x y z"]) -> Float[Tensor, " n"]:
        """Peak signal-to-noise ratio of decode(encode(image)) for images in [-1, 1], in dB."""
        here, ratios = fabric(), []
        for part in images.split(SAMPLE_BATCH):
            with here.autocast():
                latent = self.autoencoder.encoder(here.to_device(part)[:, None])
                returned = self.autoencoder.decode(latent)[:, 0].float().cpu()
            ratios.append(10 * torch.log10(4 / (returned - part).square().mean((1, 2, 3))))
        return torch.cat(ratios)

    def _velocity(self, maps: Tensor, wanted: Condition, guidance: float) -> Velocity:
        nothing = wanted.without_label()

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            conditional = self.unet(x, t, wanted, self.controlnet(x, t, wanted, maps))
            if guidance == 1:
                return conditional
            free = self.unet(x, t, nothing, self.controlnet(x, t, nothing, maps))
            return guided(conditional, free, guidance)

        return velocity


def build_autoencoder(card: ArtefactCard) -> Autoencoder:
    """An untrained autoencoder for this card's grid and number of training cases."""
    texture = ResidualTexture(card.grid.shape, len(card.training_cases))
    return Autoencoder(card.settings(AutoencoderConfig), texture)


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
    _require_parent(folder, card, "autoencoder", parent)
    channels = parent.config["latent_channels"]
    model = AnatomyPrior(len(card.classes), channels, latent_shape(parent))
    load_weights(folder, model, card)
    fabric().to_device(model)
    return model.eval(), card


def load_unet(
    folder: Path, parent: ArtefactCard, anatomy: ArtefactCard
) -> tuple[FlowUNet, ArtefactCard]:
    """A trained flow U-Net on this autoencoder and anatomy prior, frozen."""
    card = read_card(folder, kind="FlowUNet")
    _require_parent(folder, card, "anatomy", anatomy)
    config = card.settings(UNetConfig)
    model = FlowUNet(parent.config["latent_channels"], latent_shape(parent), config, N_SCALES)
    load_weights(folder, model, card)
    fabric().to_device(model)
    return model.eval().requires_grad_(False), card


def latent_shape(card: ArtefactCard) -> Shape:
    """Voxels of the latent of a part's grid."""
    x, y, z = (n // DOWNSAMPLING for n in card.grid.shape)
    return (x, y, z)


def _require_parent(folder: Path, card: ArtefactCard, name: str, parent: ArtefactCard) -> None:
    if card.parents.get(name) != parent.weights_sha256:
        raise InputError(
            f"{folder} was trained on another {name} than the one beside it. "
            "Keep the parts of one training together."
        )
