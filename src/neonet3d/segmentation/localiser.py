"""Coarse to fine: a small U-Net sees the whole scan at about 60,000 voxels and finds where to look.

It is trained for recall: what it misses, no window will ever show to the segmenter. So its loss
counts a missed voxel several times a false one, its threshold is low, and what it finds is taken
with a margin. Where it finds nothing, the whole scan is segmented.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from monai.losses import TverskyLoss
from monai.networks.nets import UNet
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from neonet3d.cohort.folds import Fold
from neonet3d.cohort.geometry import Grid, Window, resample_image
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.cohort.volume import Volume
from neonet3d.config import LoopConfig
from neonet3d.engine.artefact import ArtefactCard, load_weights, new_card, read_card, save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.engine.device import SHORTEST_X, fabric
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.engine.ranks import world_size
from neonet3d.errors import InputError
from neonet3d.metrics.lesions import TOUCHING
from neonet3d.segmentation.convolution import guard_short_grids
from neonet3d.segmentation.tiling import Foreground
from neonet3d.types import ImageArray, Triple

FOLDER = "localiser"  # inside the segmenter's
CHANNELS = (8, 16, 32)
MULTIPLE = 4  # every axis of the coarse grid
COARSE_VOXELS = 60_000
OCCUPIED = 0.25  # share of a coarse voxel's neighbourhood that makes it foreground
MISSED = 0.8  # weight of a missed voxel in the Tversky loss; a false one has the rest of 1
POSITIVE = 3.0  # weight of a foreground voxel in the cross-entropy
LIKELY, POSSIBLE = 0.5, 0.2  # probability from which on; see ``tiling.Foreground``
SMALLEST_SHARE = 0.1  # of the smallest foreground in training; a smaller component is left out
MARGIN = 1.5  # around what is possible, in coarse voxels
HALF_EMPTY = (1 - OCCUPIED) / 2  # of an outermost likely voxel, if all shares are as frequent
LARGEST_SHIFT = 4  # coarse voxels by which a training scan is moved


class LocaliserUNet(nn.Module):
    """(b, 1, x, y, z) in [-1, 1] -> (b, 1, x, y, z) logits of foreground."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=1,
            channels=CHANNELS,
            strides=[2] * (len(CHANNELS) - 1),
            num_res_units=1,
            norm="instance",
        )
        guard_short_grids(self.unet)

    def forward(self, x: Float[Tensor, "b 1 x y z"]) -> Float[Tensor, "b 1 x y z"]:
        logits: Tensor = self.unet(x).float()
        return logits


class Localiser:
    """A trained localiser, which lives in the folder of its segmenter."""

    def __init__(self, network: nn.Module, card: ArtefactCard) -> None:
        self.network = network
        self.card = card

    @classmethod
    def load(cls, folder: Path) -> Localiser:
        """
        Raises:
            InputError: no localiser there, or damaged.
        """
        card = read_card(folder, kind="Localiser")
        if "smallest_mm3" not in card.parts:
            raise InputError(
                f"The card in {folder} does not say how small the foreground may be. "
                "Train the model again."
            )
        network = LocaliserUNet()
        load_weights(folder, network, card)
        fabric().to_device(network)
        return cls(network.eval(), card)

    @classmethod
    def belonging_to(cls, segmenter: ArtefactCard, folder: Path) -> Localiser | None:
        """The localiser that was trained with a segmenter; None where none was.

        Args:
            folder: the segmenter's.

        Raises:
            InputError: it is missing or damaged, or another stands in its place.
        """
        if "localiser" not in segmenter.parts:
            raise InputError(
                f"The card in {folder} does not say whether a localiser belongs to the segmenter. "
                "Train the model again."
            )
        place = folder / FOLDER
        if segmenter.parts["localiser"] and not place.exists():
            raise InputError(
                f"{folder} lacks {FOLDER}, which finds where to look. Copy the whole folder again."
            )
        found = cls.load(place) if place.exists() else None
        if found is not None and found.card.weights_sha256 != segmenter.parents.get("localiser"):
            raise InputError(
                f"{place} was not trained with the segmenter in {folder}. "
                "Copy the whole folder again."
            )
        return found

    @torch.inference_mode()
    def find(self, image: Volume, reference: float) -> Foreground | None:
        """Where the scan may hold foreground; None where nothing was found.

        Args:
            reference: the scan's own reference intensity (``IntensityNormaliser.reference_of``).
        """
        here, card = fabric(), self.card
        assert card.normaliser is not None  # train_localiser always sets it
        window = coarse_window(image, card.grid)
        values = here.to_device(
            torch.from_numpy(_read(image, window, card.normaliser, reference)[None, None])
        )
        with here.autocast():
            probability = self.network(values)[0, 0].sigmoid().cpu().numpy()
        least_voxels = card.parts["smallest_mm3"] / float(np.prod(card.grid.spacing_mm))
        possible = _large_components(probability > POSSIBLE, least_voxels)
        if not possible.any():
            return None
        likely = possible & (probability > LIKELY)
        coarse_mm = card.grid.spacing_mm[0]
        return Foreground(
            likely=likely if likely.any() else possible,
            possible=possible,
            window=window,
            margin_mm=MARGIN * coarse_mm,
            half_empty_mm=HALF_EMPTY * coarse_mm,
        )


def train_localiser(
    fold: Fold,
    extent_mm: Triple,
    normaliser: IntensityNormaliser,
    folder: Path,
    *,
    steps: int,
    seed: int,
) -> None:
    """Fit a localiser on the whole scans of a fold's training cases, to ``folder / FOLDER``.

    Args:
        extent_mm: median of the scans.
        normaliser: the segmenter's.
        folder: the segmenter's.
    """
    grid = coarse_grid(extent_mm)
    loop = LoopConfig(
        steps=steps,
        batch_size=lcm(2, world_size()),
        learning_rate=5.0e-3,
        weight_decay=1.0e-4,
        ema_decay=0.98,
    )
    card = new_card(
        "Localiser", fold=fold, config=loop, seed=seed, normaliser=normaliser, grid=grid
    )
    if claim_folder(folder / FOLDER, card):
        return
    scans, foregrounds_mm3 = [], []
    for case in fold.training:
        image, mask = case.read_with_mask()
        scans.append(_prepare(image, mask, grid, normaliser))
        foregrounds_mm3.append(float((mask.data > 0).sum()) * mask.voxel_volume_mm3)
    smallest = SMALLEST_SHARE * min((mm3 for mm3 in foregrounds_mm3 if mm3), default=0.0)
    network = seeded(seed, LocaliserUNet)

    def draw(generator: torch.Generator) -> list[Tensor]:
        drawn = [_draw(scans, grid, generator) for _ in range(loop.batch_size)]
        images, targets = zip(*drawn, strict=True)
        return [torch.stack(images)[:, None], torch.stack(targets)[:, None]]

    loss = train_loop(
        LocaliserObjective(network),
        draw,
        loop,
        folder=folder / FOLDER,
        seed=seed,
        description=f"{fold.name}: localiser",
    )
    card = card.model_copy(
        update={"parts": {"smallest_mm3": smallest}, "facts": {"training_loss": loss}}
    )
    save_artefact(folder / FOLDER, network, card)
    remove_training_state(folder / FOLDER)


class LocaliserObjective(nn.Module):
    """Tversky loss (Salehi et al. 2017, arXiv 1706.05721) plus weighted cross-entropy."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.overlap = TverskyLoss(sigmoid=True, alpha=1 - MISSED, beta=MISSED, batch=True)
        self.register_buffer("weight", torch.tensor(POSITIVE), persistent=False)

    def forward(self, image: Tensor, target: Float[Tensor, "b 1 x y z"]) -> Tensor:
        logits = self.network(image)
        overlap: Tensor = self.overlap(logits, target)
        return overlap + F.binary_cross_entropy_with_logits(
            logits, target, pos_weight=self.get_buffer("weight")
        )


def coarse_grid(extent_mm: Triple) -> Grid:
    """About ``COARSE_VOXELS`` cubes over the median extent of the scans."""
    extent = np.array(extent_mm)
    side_mm = float((extent.prod() / COARSE_VOXELS) ** (1 / 3))
    least = (SHORTEST_X * MULTIPLE, MULTIPLE, MULTIPLE)
    x, y, z = np.maximum(_multiples(extent / side_mm), least).tolist()
    return Grid((x, y, z), (side_mm, side_mm, side_mm))


def coarse_window(scan: Volume, grid: Grid) -> Window:
    """The coarse voxels over the whole of a scan, and at least as many as the training grid has."""
    voxels = _multiples(scan.extent_mm / np.array(grid.spacing_mm))
    x, y, z = np.maximum(voxels, grid.shape).tolist()
    return Window.centred(scan, Grid((x, y, z), grid.spacing_mm))


@dataclass(frozen=True)
class _Scan:
    image: Float[Tensor, "x y z"]
    target: Float[Tensor, "x y z"]


def _prepare(image: Volume, mask: Volume, grid: Grid, normaliser: IntensityNormaliser) -> _Scan:
    """A scan on the coarse grid with room to be moved; outside there is no signal."""
    window = coarse_window(image, grid)
    reference = normaliser.reference_of(image.data, None, name=str(image.source))
    values = _read(image, window, normaliser, reference)
    inside = mask.with_data((mask.data > 0).astype(np.float32))
    target = (resample_image(inside, window) > OCCUPIED).astype(np.float32)
    room = [LARGEST_SHIFT] * 6
    return _Scan(
        F.pad(torch.from_numpy(values), room, value=-1), F.pad(torch.from_numpy(target), room)
    )


def _draw(scans: list[_Scan], grid: Grid, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A scan at a random place of the grid, at a random gain."""
    scan = scans[int(torch.randint(len(scans), (), generator=generator))]
    place = []
    for n, wanted in zip(scan.image.shape, grid.shape, strict=True):
        start = int(torch.randint(n - wanted + 1, (), generator=generator))
        place.append(slice(start, start + wanted))
    gain = torch.empty(()).uniform_(0.85, 1.15, generator=generator)
    values = ((scan.image[tuple(place)] + 1) * gain - 1).clamp(-1, 1)
    return values, scan.target[tuple(place)]


def _read(
    image: Volume, window: Window, normaliser: IntensityNormaliser, reference: float
) -> ImageArray:
    """A scan on the coarse grid, averaged first and normalised then: no second copy of it."""
    return normaliser.scale(resample_image(image, window), reference)


def _large_components(
    mask: Bool[np.ndarray, "x y z"], least_voxels: float
) -> Bool[np.ndarray, "x y z"]:
    """Components of at least so many voxels; voxels that share a corner are one component."""
    components, n = ndimage.label(mask, TOUCHING)
    voxels = np.bincount(components.ravel(), minlength=n + 1)
    large = voxels >= least_voxels
    large[0] = False
    return np.asarray(large[components])


def _multiples(voxels: np.ndarray) -> np.ndarray:
    return (np.ceil(np.round(voxels / MULTIPLE, 3)) * MULTIPLE).astype(int)
