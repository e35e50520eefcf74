"""NeoSeg training: foreground-balanced patches, Dice + cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from monai.losses import DiceCELoss
from torch import Tensor, nn

from neonet3d.cohort.folds import Fold
from neonet3d.cohort.geometry import Grid, Window, resample_image, resample_label_map
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.cohort.volume import Volume
from neonet3d.config import Config, SegmenterConfig
from neonet3d.engine.artefact import claim_folder, new_card, save_artefact
from neonet3d.engine.device import SHORTEST_X
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.engine.progress import progress
from neonet3d.errors import InputError
from neonet3d.segmentation.network import HaarUNet, size_multiple
from neonet3d.types import Shape, Triple

FOREGROUND_SHARE = 2 / 3  # of patches that are centred on a voxel of a class drawn at random


def train_segmenter(fold: Fold, config: Config, folder: Path) -> None:
    """Fit a segmenter on the training cases of one fold and write it to ``folder``.

    Raises:
        InputError: no class beside background, or a training case without a mask.
    """
    schema = fold.training.schema
    if len(schema) < 2:
        raise InputError(
            f"{fold.training.root} has no class beside background, so there is nothing to segment. "
            "Name the classes in dataset.json."
        )
    with progress(f"{fold.name}: reading scans", len(fold.training)) as advance:
        pairs = []
        for case in fold.training:
            pairs.append(case.read_with_mask())
            advance()
    spacing = config.segmenter.spacing_mm or _median_spacing([image for image, _ in pairs])
    normaliser = IntensityNormaliser.fit(((image.data, None) for image, _ in pairs), schema)
    patch = fit_patch(config.segmenter, [image for image, _ in pairs], spacing)
    card = new_card(
        "Segmenter",
        fold=fold,
        config=config.segmenter,
        seed=config.seed,
        normaliser=normaliser,
        grid=Grid(patch, spacing),
    )
    if claim_folder(folder, card):
        return
    scans = [
        _prepare(image, mask, card.grid, normaliser, n_classes=len(schema)) for image, mask in pairs
    ]
    del pairs
    network = seeded(config.seed, lambda: HaarUNet(config.segmenter, len(schema)))

    def draw(generator: torch.Generator) -> list[Tensor]:
        drawn = [
            _draw_patch(scans, patch, generator) for _ in range(config.segmenter.loop.batch_size)
        ]
        images, maps = zip(*drawn, strict=True)
        return [_jitter(torch.stack(images), generator)[:, None], torch.stack(maps)]

    loss = train_loop(
        SegmentationObjective(network),
        draw,
        config.segmenter.loop,
        folder=folder,
        seed=config.seed,
        description=f"{fold.name}: segmenter",
    )
    save_artefact(folder, network, card.model_copy(update={"facts": {"training_loss": loss}}))
    remove_training_state(folder)


class SegmentationObjective(nn.Module):
    """Soft Dice over the foreground plus cross-entropy, both in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)

    def forward(self, image: Tensor, label_map: UInt8[Tensor, "b x y z"]) -> Tensor:
        loss: Tensor = self.loss(self.network(image).float(), label_map[:, None].long())
        return loss


def fit_patch(config: SegmenterConfig, images: list[Volume], spacing_mm: Triple) -> Shape:
    """The configured patch, no larger than the largest scan needs, in the network's multiples."""
    multiple = size_multiple(config)
    extent = np.max([np.array(v.shape) * np.array(v.spacing_mm) for v in images], axis=0)
    needed = np.ceil(np.round(extent / np.array(spacing_mm), 3) / multiple) * multiple
    wanted = np.ceil(np.array(config.patch) / multiple) * multiple
    x, y, z = np.minimum(needed, wanted).astype(int).tolist()
    return (max(x, SHORTEST_X * multiple), y, z)


@dataclass(frozen=True)
class _Scan:
    image: Float[Tensor, "x y z"]
    label_map: UInt8[Tensor, "x y z"]
    places: dict[int, Tensor]  # up to 2,000 voxels of each foreground class, (n, 3)


def _prepare(
    image: Volume, mask: Volume, grid: Grid, normaliser: IntensityNormaliser, *, n_classes: int
) -> _Scan:
    """Onto the training spacing, normalised, padded to at least one patch."""
    extent = np.array(image.shape) * np.array(image.spacing_mm)
    voxels = np.maximum(np.round(extent / np.array(grid.spacing_mm)), grid.shape).astype(int)
    x, y, z = voxels.tolist()
    window = Window.centred(image, Grid((x, y, z), grid.spacing_mm))
    data = normaliser.apply(image.data, None, name=str(image.source))
    values = torch.from_numpy(resample_image(image.with_data(data + 1), window) - 1)
    labels = torch.from_numpy(resample_label_map(mask, window, n_classes=n_classes))
    places = {}
    for k in range(1, n_classes):
        found = (labels == k).nonzero()
        if len(found):
            places[k] = found[:: max(1, len(found) // 2000)]
    return _Scan(values, labels, places)


def _draw_patch(
    scans: list[_Scan], patch: Shape, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One patch: on a voxel of a random class, or anywhere.

    Never flipped: everything is RAS here, and the liver is told from the spleen by its side.
    """
    scan = scans[_integer(len(scans), generator)]
    size = torch.tensor(patch)
    room = torch.tensor(scan.image.shape) - size
    if scan.places and float(torch.rand((), generator=generator)) < FOREGROUND_SHARE:
        of_class = scan.places[list(scan.places)[_integer(len(scan.places), generator)]]
        jitter = torch.rand(3, generator=generator) - 0.5
        start = (
            of_class[_integer(len(of_class), generator)] - size // 2 + (jitter * size / 2).long()
        )
    else:
        start = (torch.rand(3, generator=generator) * (room + 1)).long()
    x, y, z = torch.minimum(start.clamp_min(0), room).tolist()
    place = (slice(x, x + patch[0]), slice(y, y + patch[1]), slice(z, z + patch[2]))
    return scan.image[place], scan.label_map[place]


def _jitter(images: Float[Tensor, "b x y z"], generator: torch.Generator) -> Tensor:
    """Random gain, gamma and noise per patch: scanners differ in all three."""
    n = len(images)
    gain = torch.empty(n, 1, 1, 1).uniform_(0.85, 1.15, generator=generator)
    gamma = torch.empty(n, 1, 1, 1).uniform_(0.8, 1.25, generator=generator)
    sigma = torch.empty(n, 1, 1, 1).uniform_(0, 0.05, generator=generator)
    signal = ((images + 1) / 2 * gain).clamp(0, 1) ** gamma
    return signal * 2 - 1 + sigma * torch.randn(images.shape, generator=generator)


def _median_spacing(images: list[Volume]) -> Triple:
    x, y, z = np.median([image.spacing_mm for image in images], axis=0).tolist()
    return (x, y, z)


def _integer(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
