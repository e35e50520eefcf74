"""A segmenter of patches in memory, for experiments that train hundreds of them.

NeoSeg's networks, loss and augmentation without what whole scans need: no localiser, no windows, no
early stopping, so that every training takes the steps that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from neonet3d.cohort.geometry import Grid
from neonet3d.config import (
    AugmentationConfig,
    LoopConfig,
    NetworkName,
    SegmenterConfig,
    SegmenterPlan,
)
from neonet3d.engine.device import fabric, memory_bytes
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.segmentation.augment import IntensityNoise, draw_grid, flip, read_through
from neonet3d.segmentation.networks import SegmentationNetwork
from neonet3d.segmentation.plan import Fingerprint, make_plan
from neonet3d.segmentation.train import SegmentationObjective

AIR = -1.0  # intensity of what pads a patch
SEGMENT_BATCH = 8


@dataclass(frozen=True)
class LabelledPatches:
    """Images in [-1, 1] and label maps, ``[n, x, y, z]``, on one grid."""

    images: Float[Tensor, "n x y z"]
    label_maps: UInt8[Tensor, "n x y z"]

    def __len__(self) -> int:
        return len(self.images)

    def join(self, other: LabelledPatches) -> LabelledPatches:
        """These and the others."""
        return LabelledPatches(
            torch.cat([self.images, other.images]), torch.cat([self.label_maps, other.label_maps])
        )


class PatchSegmenter:
    """One of NeoSeg's networks on patches of one grid.

    Args:
        plan: of the network; its patch is at least as large as the grid, and patches are padded.
    """

    def __init__(self, plan: SegmenterPlan, grid: Grid, n_classes: int, *, seed: int) -> None:
        self.grid = grid
        self.margins = [big - small for big, small in zip(plan.patch, grid.shape, strict=True)]
        self.network = seeded(seed, lambda: SegmentationNetwork(plan, n_classes))

    def train(
        self,
        patches: LabelledPatches,
        loop: LoopConfig,
        folder: Path,
        *,
        seed: int,
        description: str,
        augmentation: AugmentationConfig | None = None,
    ) -> float:
        """Dice and cross-entropy on random batches; the mean loss of the last steps.

        Args:
            folder: keeps the state of an interrupted training.
            augmentation: what patches go through; None leaves them as they are.
        """
        noise = None if augmentation is None else IntensityNoise(augmentation.intensity)

        def draw(generator: torch.Generator) -> list[Tensor]:
            rows = torch.randint(len(patches), (loop.batch_size,), generator=generator)
            images, maps = patches.images[rows], patches.label_maps[rows]
            if augmentation is not None and noise is not None:
                pairs = [
                    augment_patch(image, label_map, self.grid, augmentation, noise, generator)
                    for image, label_map in zip(images, maps, strict=True)
                ]
                images, maps = (torch.stack(part) for part in zip(*pairs, strict=True))
            return [self._padded(images, AIR)[:, None], self._padded(maps, 0)]

        loss = train_loop(
            SegmentationObjective(self.network),
            draw,
            loop,
            folder=folder,
            seed=seed,
            description=description,
        )
        remove_training_state(folder)
        return loss

    @torch.inference_mode()
    def segment(self, images: Float[Tensor, "n x y z"]) -> UInt8[Tensor, "n x y z"]:
        """Label maps of patches on the grid, on the CPU."""
        here, found = fabric(), []
        self.network.eval()
        x, y, z = (slice(0, n) for n in self.grid.shape)
        for part in images.split(SEGMENT_BATCH):
            with here.autocast():
                logits = self.network(here.to_device(self._padded(part, AIR))[:, None])
            found.append(logits.argmax(1).to(torch.uint8)[:, x, y, z].cpu())
        return torch.cat(found)

    def _padded(self, x: Tensor, value: float) -> Tensor:
        ends = [n for margin in reversed(self.margins) for n in (0, margin)]
        return F.pad(x, ends, value=value) if any(ends) else x


def augment_patch(
    image: Tensor,
    label_map: Tensor,
    grid: Grid,
    config: AugmentationConfig,
    noise: IntensityNoise,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A patch in another pose, from another scanner, and its label map."""
    if float(torch.rand((), generator=generator)) < config.spatial:
        middle = (torch.tensor(grid.shape) - 1) / 2
        where = draw_grid(grid.shape, grid.spacing_mm, generator)
        image, label_map = read_through(image, label_map, middle, where, grid.spacing_mm)
    image, label_map = flip([image, label_map], config.flip_axes, generator)
    return noise(image, generator), label_map


def patch_plan(
    network: NetworkName, grid: Grid, width: int, settings: SegmenterConfig
) -> SegmenterPlan:
    """The plan that NeoSeg would make of such patches, behind the Haar stem."""
    config = settings.model_copy(
        update={
            "network": network,
            "stem": True,
            "spacing_mm": grid.spacing_mm,
            "patch": grid.shape,
            "channels": None,
            "strides": None,
            "width": width,
        }
    )
    return make_plan(Fingerprint.of([grid], memory_bytes=memory_bytes()), config)
