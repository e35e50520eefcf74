"""What every rival of NeoGen can do: train for so many seconds, then draw images for label maps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neonet3d.cohort.patches import GRID_MULTIPLE, Patches
from neonet3d.engine.device import fabric
from neonet3d.errors import InputError
from neonet3d.generation.controlnet import one_hot
from neonet3d.generation.rivals.batches import N_LABELS, TrainingSet
from neonet3d.generation.rivals.budget import Budget, Part, RivalRecord, train_parts
from neonet3d.types import ImageBatch, OneHotBatch, Shape

SMALLEST_EXTENT = 24  # voxels
SAMPLE_BATCH = 16


class Rival(ABC):
    """A generator of patches from a paper, on one grid, with one set of classes.

    Args:
        shape: of the grid; multiples of 8 voxels, at least 24.
        n_classes: of the label maps, background included.
        labelled: whether it is told outcomes.

    Raises:
        InputError: a grid that it cannot draw, or label maps without a class.

    Example:
        >>> rival = build_rival("med-ddpm", (48, 48, 24), 4, labelled=True)  # doctest: +SKIP
        >>> record = rival.fit(patches, seconds=600, seed=0)                 # doctest: +SKIP
        >>> images = rival.sample(label_maps, labels, seed=0)                # doctest: +SKIP
    """

    name: ClassVar[str]

    def __init__(self, shape: Shape, n_classes: int, *, labelled: bool) -> None:
        if any(n % GRID_MULTIPLE or n < SMALLEST_EXTENT for n in shape):
            raise InputError(
                f"A rival cannot draw patches of {shape} voxels. Each axis must be a multiple of "
                f"{GRID_MULTIPLE} and at least {SMALLEST_EXTENT}."
            )
        if n_classes < 2:
            raise InputError("The rivals draw images for masks, and these have no class to draw.")
        self.shape, self.n_classes, self.labelled = shape, n_classes, labelled
        self.n_masks, self.n_labels = n_classes - 1, N_LABELS if labelled else 0
        self._trained = False

    def fit(self, patches: Patches, *, seconds: float, seed: int) -> RivalRecord:
        """Train anew until the wall-clock seconds are spent; building the networks counts.

        Raises:
            InputError: patches on another grid, without masks, or without the outcomes it needs.
            RunError: a loss is not finite, or the seconds do not do for one step of each part.
        """
        return self.train(patches, Budget(seconds), seed=seed)

    def train(self, patches: Patches, budget: Budget, *, seed: int) -> RivalRecord:
        """As ``fit``, by a clock that runs already."""
        if patches.shape != self.shape:
            raise InputError(
                f"The patches are {patches.shape} voxels but this rival draws {self.shape}."
            )
        self._check_maps(patches.required_label_maps())
        if self.labelled and not bool((patches.outcomes >= 0).any()):
            raise InputError("A rival that is told outcomes cannot train on cases without one.")
        self._trained = False
        torch.manual_seed(seed)
        parts = self._parts(TrainingSet(patches, self.n_classes, self.labelled))
        record = train_parts(parts, budget, seed=seed, rival=self.name)
        self._trained = True
        return record

    @torch.inference_mode()
    def sample(
        self, label_maps: UInt8[Tensor, "n x y z"], labels: Int[Tensor, " n"], *, seed: int
    ) -> Float[Tensor, "n x y z"]:
        """Draw one image for each label map.

        Args:
            label_maps: on the rival's grid, with its classes.
            labels: 0 or 1, or -1 for "not said".

        Returns:
            Images in [-1, 1] on the CPU.

        Raises:
            InputError: it is not trained, or the maps or labels are not those it was trained for.
        """
        if not self._trained:
            raise InputError(f"{self.name} is not trained. Call fit first.")
        if tuple(label_maps.shape[1:]) != self.shape:
            raise InputError(
                f"The label maps are {tuple(label_maps.shape[1:])} voxels but {self.name} draws "
                f"{self.shape}. Bring them onto its grid."
            )
        self._check_maps(label_maps)
        unknown = labels[(labels < -1) | (labels >= N_LABELS)]
        if len(unknown):
            raise InputError(
                f"{self.name} cannot draw the label {int(unknown[0])}. Say 0, 1, or -1 for none."
            )
        if not self.labelled and bool((labels >= 0).any()):
            raise InputError(f"{self.name} was built without labels; it cannot obey one.")
        here, generator, images = fabric(), torch.Generator().manual_seed(seed), []
        for part in torch.arange(len(labels)).split(SAMPLE_BATCH):
            masks = one_hot(here.to_device(label_maps[part]), self.n_classes)
            drawn = self._draw(masks, here.to_device(labels[part]), generator)
            images.append(drawn[:, 0].float().clamp(-1, 1).cpu())
        return torch.cat(images)

    def _check_maps(self, label_maps: UInt8[Tensor, "n x y z"]) -> None:
        highest = int(label_maps.max())
        if highest >= self.n_classes:
            raise InputError(
                f"The label maps hold the value {highest}, but {self.name} was built for the "
                f"values 0 to {self.n_classes - 1}."
            )

    @abstractmethod
    def _parts(self, data: TrainingSet) -> Iterator[Part]:
        """Build the networks, torch's generator being seeded, and hand out what trains in turn.

        A part is finished when the next is asked for, and the last when there is none.
        """

    @abstractmethod
    def _draw(
        self, masks: OneHotBatch, labels: Int[Tensor, " b"], generator: torch.Generator
    ) -> ImageBatch:
        """Images of a batch on the device; noise comes from a generator on the CPU."""


def draw_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal, on the device; the same on every device."""
    return fabric().to_device(torch.randn(shape, generator=generator))
