"""LatentGenerator: NeoGen's seven parts, from autoencoder to calibration, as one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from neonet3d.config import DetailConfig, SamplerConfig, SamplerName
from neonet3d.engine.artefact import ArtefactCard, load_weights, read_card
from neonet3d.engine.device import fabric, ready_for_inference
from neonet3d.errors import InputError
from neonet3d.generation.band_calibration import BandCalibration
from neonet3d.generation.condition import N_SCALES, Condition
from neonet3d.generation.detail import DetailDecoder
from neonet3d.generation.latent_flow import LatentFlow, latent_shape, require_parent
from neonet3d.generation.latents import reconstructions
from neonet3d.types import ImageBatch, LabelBatch

SAMPLE_BATCH = 16
CALIBRATED = ("controlnet", "refiner", "detail")  # parts that a calibration belongs to


class LatentGenerator(LatentFlow):
    """NeoGen: draws image patches that obey a label map and an outcome label.

    Example:
        >>> generator = LatentGenerator.load("model")                      # doctest: +SKIP
        >>> images = generator.sample(label_maps, labels, steps=16, seed=0)  # doctest: +SKIP
    """

    def __init__(self, flow: LatentFlow, detail: DetailDecoder, card: ArtefactCard) -> None:
        super().__init__(flow.autoencoder, flow.anatomy, flow.unet, flow.controlnet, card)
        self.refiner = flow.refiner
        self.detail = detail
        self.calibrated_for: SamplerConfig | None = None  # the calibration's
        self.calibrations = nn.ModuleDict(
            {name: BandCalibration(len(card.classes)) for name in ("draws", "reconstructions")}
        )
        fabric().to_device(self.calibrations)

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Load the seven parts of a folder and check that they belong together.

        Raises:
            InputError: a part is missing, damaged, or was trained on another part.
        """
        path, model = Path(folder) / "calibration", cls.load_uncalibrated(folder)
        card = read_card(path, kind="BandCalibration")
        for name in CALIBRATED:
            require_parent(path, card, name, read_card(Path(folder) / name))
        load_weights(path, model.calibrations, card)
        model.card = model.card.model_copy(update={"weights_sha256": _joint_hash(model.card, card)})
        model.calibrated_for = card.settings(SamplerConfig)
        return model

    @classmethod
    def load_uncalibrated(cls, folder: Path | str) -> Self:
        """The same without the calibration, which is fitted on what this draws."""
        folder, flow = Path(folder), LatentFlow.load(folder)
        path = folder / "refiner"
        refined = read_card(path, kind="Refiner")
        require_parent(path, refined, "controlnet", flow.card)
        load_weights(path, flow.refiner, refined)
        path = folder / "detail"
        card = read_card(path, kind="DetailDecoder")
        require_parent(path, card, "autoencoder", read_card(folder / "autoencoder"))
        detail = build_detail(card)
        load_weights(path, detail, card)
        ready_for_inference(detail)
        fabric().to_device(detail)
        # The detail decoder is no child of the flow: only all hashes say what is drawn.
        joint = _joint_hash(flow.card, refined, card)
        whole = card.model_copy(update={"weights_sha256": joint})
        return cls(flow, detail.requires_grad_(False), whole).eval()

    @torch.inference_mode()
    def sample(
        self,
        label_maps: UInt8[Tensor, "n x y z"],
        labels: Int[Tensor, " n"],
        *,
        steps: int,
        seed: int,
        method: SamplerName = "exponential",
        guidance: float = 1.0,
        mask_guidance: float = 1.0,
        log_scale: Float[Tensor, "n 3"] | None = None,
    ) -> Float[Tensor, "n x y z"]:
        """Draw one image for each label map.

        Args:
            label_maps: on the generator's grid, with its classes.
            labels: 0 or 1, or -1 for "not said".
            steps: of the sampler.
            method: a sampler of ``flow.py``.
            guidance: classifier-free guidance of the label; 1 is none.
            mask_guidance: of the mask, times what the ControlNet has learned; 1 adds none.
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
            amplitudes = self.anatomy.bank.draw(labels[part], generator, guidance=guidance)
            decoded = self.decoded(
                noise,
                maps,
                told,
                amplitudes,
                steps=steps,
                method=method,
                guidance=guidance,
                mask_guidance=mask_guidance,
            )
            images.append(self._finished("draws", decoded, maps, generator))
        return torch.cat(images)

    @torch.inference_mode()
    def reconstruct(
        self, images: Float[Tensor, "n x y z"], label_maps: UInt8[Tensor, "n x y z"], *, seed: int
    ) -> Float[Tensor, "n x y z"]:
        """Decode the latents of images and draw their detail anew; as ``sample`` without a flow."""
        here, generator, made = fabric(), torch.Generator().manual_seed(seed), []
        for part, maps in zip(
            images.split(SAMPLE_BATCH), label_maps.split(SAMPLE_BATCH), strict=True
        ):
            maps = here.to_device(maps)
            decoded = reconstructions(self.autoencoder, part)[:, None]
            with here.autocast():
                decoded = self.detail.refiner(decoded, maps)
            made.append(self._finished("reconstructions", decoded, maps, generator))
        return torch.cat(made)

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

    def _finished(
        self, origin: str, decoded: ImageBatch, maps: LabelBatch, generator: torch.Generator
    ) -> Float[Tensor, "b x y z"]:
        """Refined patches with detail, calibrated; on the CPU."""
        with fabric().autocast():
            drawn = self.detail.draw(decoded, maps, generator)
        calibrated = self.calibration_of(origin)(drawn, maps)
        return calibrated[:, 0].cpu()

    def calibration_of(self, origin: str) -> BandCalibration:
        """Of "draws" or of "reconstructions"."""
        found = self.calibrations[origin]
        assert isinstance(found, BandCalibration)
        return found


def _joint_hash(*cards: ArtefactCard) -> str:
    return hashlib.sha256("".join(card.weights_sha256 for card in cards).encode()).hexdigest()


def build_detail(card: ArtefactCard) -> DetailDecoder:
    """An untrained detail decoder of this card's settings, classes and number of cases."""
    return DetailDecoder(len(card.classes), len(card.training_cases), card.settings(DetailConfig))
