"""MaskGenerator: draws label maps that no patient had, for an outcome and a tumour volume.

Latent diffusion of the whole map: a rectified flow on the latents of a categorical autoencoder
(``mask_autoencoder.py``), with the networks and the objective of the image flow. It starts from the
deformed mask of a training case (``masks.py``), noised to some t, so that veins hang together
(SDEdit, Meng et al. 2021, arXiv 2108.01073), or from noise alone. A drawn map is decoded by argmax
and cleaned of stray pieces. Its tumour is grown or shrunk to the volume asked for; where it is too
far from it, or cannot be, the map is drawn again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import load_label_maps
from neonet3d.config import MaskAutoencoderConfig, MaskNetworksConfig, MasksConfig
from neonet3d.engine.artefact import ArtefactCard, load_weights, read_card
from neonet3d.engine.device import fabric
from neonet3d.errors import InputError, RunError
from neonet3d.generation.condition import Condition
from neonet3d.generation.flow import Velocity, exponential
from neonet3d.generation.generator import SAMPLE_BATCH
from neonet3d.generation.latent_flow import latent_shape, require_parent
from neonet3d.generation.lesion_edit import resize_tumour
from neonet3d.generation.mask_autoencoder import MaskAutoencoder
from neonet3d.generation.mask_statistics import (
    N_NUMBERS,
    MaskConditions,
    MaskStatistics,
    tumour_volumes_mm3,
)
from neonet3d.generation.masks import deform_mask
from neonet3d.generation.unet import FlowUNet
from neonet3d.metrics.mask_novelty import MaskNovelty, mask_novelty
from neonet3d.types import LabelMap


@dataclass(frozen=True)
class DrawnMasks:
    """New label maps on the generator's grid.

    Attributes:
        outcomes: (n,) that they were drawn for; -1 where none was said.
        log_scale: (n, 3) as ``Patches.log_scale``.
        volumes_mm3: (n,) of their tumours; as asked for to a voxel where the classes have a liver.
        sources: digest of the training case whose deformed mask each started from; empty where they
            started from noise alone.
        redrawn: how many draws were refused on the way.
    """

    label_maps: UInt8[Tensor, "n x y z"]
    outcomes: Int[Tensor, " n"]
    log_scale: Float[Tensor, "n 3"]
    volumes_mm3: Float[Tensor, " n"]
    sources: tuple[str, ...]
    redrawn: int


class MaskFlow(nn.Module):
    """What ``masks/flow`` holds: the flow, and the statistics that its conditions come from.

    Buffer ``place_mean`` (c, x, y, z): the mean latent of training at each place, around which the
    flow draws: convolutions know little of where they are. It matters most from noise alone.
    """

    place_mean: Tensor

    def __init__(self, card: ArtefactCard) -> None:
        super().__init__()
        config = card.settings(MaskNetworksConfig)
        channels, shape = config.autoencoder.latent_channels, latent_shape(card)
        self.unet = FlowUNet(channels, shape, config.flow, N_NUMBERS, 0)
        self.register_buffer("place_mean", torch.zeros(channels, *shape))
        self.statistics = MaskStatistics(len(card.training_cases), len(card.classes))


class MaskGenerator(nn.Module):
    """Label maps for an outcome and a tumour volume.

    Example:
        >>> masks = MaskGenerator.load("model/masks")              # doctest: +SKIP
        >>> settings = load_config("cpu").masks                    # doctest: +SKIP
        >>> drawn = masks.sample(8, settings, seed=0, training=cohort)  # doctest: +SKIP
    """

    def __init__(self, autoencoder: MaskAutoencoder, flow: MaskFlow, card: ArtefactCard) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.flow = flow
        self.statistics = flow.statistics
        self.card = card

    @classmethod
    def load(cls, folder: Path | str) -> MaskGenerator:
        """Load both parts of a folder and check that they belong together.

        Raises:
            InputError: a part is missing, damaged, or was trained on another part.
        """
        folder = Path(folder)
        autoencoder, parent = load_mask_autoencoder(folder / "autoencoder")
        card = read_card(folder / "flow", kind="MaskFlow")
        require_parent(folder / "flow", card, "autoencoder", parent)
        flow = MaskFlow(card)
        load_weights(folder / "flow", flow, card)
        model = cls(autoencoder, flow, card).eval()
        fabric().to_device(model.autoencoder)
        fabric().to_device(model.flow)
        model.statistics.cpu()
        return model

    def sample(
        self,
        n: int,
        config: MasksConfig,
        *,
        seed: int,
        training: Cohort | None = None,
        outcome: int | None = None,
        tumour_volume_mm3: float | None = None,
    ) -> DrawnMasks:
        """Draw ``n`` label maps.

        Args:
            config: where the flow starts, its steps, and what tumours are too far off.
            training: the cases of training, for a start below 1: each map starts from the mask of
                the case that its conditions are of.
            outcome: of all of them; by default drawn from the training fold with the volume.
            tumour_volume_mm3: of all of them; by default drawn from the training fold.

        Raises:
            InputError: an outcome or a volume that the training fold does not have, or no masks to
                start from.
            RunError: a map whose tumour is not as asked in ``config.attempts`` draws.
        """
        if self.card.outcome is None and outcome is not None:
            raise InputError("The mask generator was trained without outcomes.")
        starts = None if config.start == 1 else self._starts(training)
        generator = torch.Generator().manual_seed(seed)
        wanted = self.statistics.draw(n, generator, outcome=outcome, volume_mm3=tumour_volume_mm3)
        maps = torch.zeros(n, *self.card.grid.shape, dtype=torch.uint8)
        pending, drawn = torch.arange(n), 0
        for _ in range(config.attempts):
            if len(pending) == 0:
                break
            refused = []
            fresh = self._draw(wanted.rows(pending), config, generator, starts)
            for row, new in zip(pending.tolist(), fresh.numpy(), strict=True):
                scale = wanted.log_scale[row].exp().numpy()
                asked_mm3 = float(wanted.volumes_mm3[row])
                fitted = self._fitted(new, asked_mm3, scale, config.volume_factor)
                if fitted is None:
                    refused.append(row)
                else:
                    maps[row] = torch.from_numpy(fitted)
            drawn += len(pending)
            pending = torch.tensor(refused, dtype=torch.long)
        if len(pending):
            asked = ", ".join(f"{v:.0f}" for v in wanted.volumes_mm3[pending][:3].tolist())
            raise RunError(
                f"{len(pending)} of {n} label maps had no tumour near the volume asked for "
                f"({asked} mm3) in {config.attempts} draws. Train the mask generator longer."
            )
        from_case = [self.card.training_cases[i] for i in wanted.sources.tolist()]
        return DrawnMasks(
            label_maps=maps,
            outcomes=wanted.outcomes,
            log_scale=wanted.log_scale,
            volumes_mm3=self._volumes(maps, wanted),
            sources=("",) * n if starts is None else tuple(from_case),
            redrawn=drawn - n,
        )

    def novelty(self, drawn: DrawnMasks, training: Cohort) -> MaskNovelty:
        """How like the drawn maps are to those of training, and those to each other."""
        maps, _ = load_label_maps(training, self.card.grid)
        patients = [case.participant for case in training]
        n_classes = len(self.card.classes)
        return mask_novelty(drawn.label_maps.numpy(), maps.numpy(), patients, n_classes)

    def _starts(self, training: Cohort | None) -> UInt8[Tensor, "m x y z"]:
        """Masks of training on the grid, in the order of the card's cases."""
        if training is None:
            raise InputError(
                "New masks start from those of training, which the model does not hold. Give the "
                "cohort of training (--training), or start from noise alone (--set masks.start=1)."
            )
        found = {case.digest(): case for case in self.card.training_cases_of(training)}
        in_order = tuple(found[digest] for digest in self.card.training_cases)
        return load_label_maps(replace(training, cases=in_order), self.card.grid)[0]

    @torch.inference_mode()
    def _draw(
        self,
        wanted: MaskConditions,
        config: MasksConfig,
        generator: torch.Generator,
        starts: UInt8[Tensor, "m x y z"] | None,
    ) -> UInt8[Tensor, "n x y z"]:
        here, maps = fabric(), []
        start, steps = config.start, math.ceil(config.start * config.steps)
        numbers = self.statistics.numbers(wanted)
        shape = (self.autoencoder.latent_mean.numel(), *latent_shape(self.card))
        for part in torch.arange(len(numbers)).split(SAMPLE_BATCH):
            told = Condition.of(
                here.to_device(wanted.outcomes[part]), here.to_device(numbers[part])
            )
            noise = here.to_device(torch.randn(len(part), *shape, generator=generator))
            with here.autocast():
                if starts is not None:
                    deformed = self._deformed(starts[wanted.sources[part]], generator)
                    deformed = here.to_device(deformed)
                    latent = self.autoencoder.encode(deformed).float() - self.flow.place_mean
                    noise = (1 - start) * latent + start * noise
                gaussian = self.flow.unet.gaussian
                latent = exponential(self._excess(told), gaussian, noise, steps, start)
                drawn = self.autoencoder.decode(latent + self.flow.place_mean)
                maps.append(drawn.argmax(1).to(torch.uint8).cpu())
        spacing_mm = self.card.grid.spacing_mm
        cleaned = [self.statistics.cleaned(m, spacing_mm) for m in torch.cat(maps).numpy()]
        return torch.from_numpy(np.stack(cleaned))

    def _deformed(
        self, maps: UInt8[Tensor, "n x y z"], generator: torch.Generator
    ) -> UInt8[Tensor, "n x y z"]:
        schema, spacing_mm = self.card.schema_, self.card.grid.spacing_mm
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        return torch.from_numpy(
            np.stack([deform_mask(one, schema, spacing_mm, rng) for one in maps.numpy()])
        )

    def _excess(self, told: Condition) -> Velocity:
        return lambda x, t: self.flow.unet.excess(x, t, told)

    def _fitted(
        self, label_map: LabelMap, asked_mm3: float, scale: Float[np.ndarray, 3], factor: float
    ) -> LabelMap | None:
        """The map with its tumour at the volume asked for; None where it is too far from it.

        Without a liver nobody says where a tumour may grow, and its volume stays as drawn.
        """
        schema, (x, y, z) = self.card.schema_, self.card.grid.spacing_mm * scale
        voxels = int((label_map == schema.value("tumour")).sum()) if "tumour" in schema else 0
        if asked_mm3 == 0 or voxels == 0:
            return label_map if voxels == asked_mm3 == 0 else None
        if abs(np.log(voxels * x * y * z / asked_mm3)) > np.log(factor):
            return None
        if "liver" not in schema:
            return label_map
        try:
            return resize_tumour(label_map, schema, (float(x), float(y), float(z)), asked_mm3)
        except RunError:
            return None

    def _volumes(self, maps: Tensor, wanted: MaskConditions) -> Float[Tensor, " n"]:
        schema, spacing_mm = self.card.schema_, self.card.grid.spacing_mm
        return tumour_volumes_mm3(maps, schema, spacing_mm, wanted.log_scale)


def load_mask_autoencoder(folder: Path) -> tuple[MaskAutoencoder, ArtefactCard]:
    """A trained autoencoder of label maps, frozen, on the device."""
    card = read_card(folder, kind="MaskAutoencoder")
    model = MaskAutoencoder(card.settings(MaskAutoencoderConfig), len(card.classes))
    load_weights(folder, model, card)
    fabric().to_device(model)
    return model.eval().requires_grad_(False), card
