"""What a training of the generator will take, before it begins: seconds and memory of each stage.

A stage is measured on a few real steps (forward, backward, clip, AdamW) at its real sizes, on
random data and random weights, after one to warm up; nothing is written. Memory on CUDA is
``torch.cuda.max_memory_allocated`` over those steps. On the CPU it is counted: the batch, what
autograd keeps between forward and backward (each storage once), and weights with their gradients,
moments and average. What kernels borrow for a moment is not in it: the resident peak of the liver
preset's autoencoder was a third higher.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import GRID_MULTIPLE, fit_patches
from neonet3d.config import Config, LoopConfig, MasksConfig
from neonet3d.engine.device import SHORTEST_X, channels_last, fabric
from neonet3d.engine.loop import GRADIENT_CLIP, seeded
from neonet3d.generation.autoencoder import DOWNSAMPLING, Autoencoder, AutoencoderObjective
from neonet3d.generation.condition import N_SCALES
from neonet3d.generation.controlnet import ControlNet
from neonet3d.generation.detail import DetailDecoder
from neonet3d.generation.latents import n_views
from neonet3d.generation.mask_autoencoder import MaskAutoencoder, MaskObjective
from neonet3d.generation.mask_statistics import N_NUMBERS
from neonet3d.generation.mask_train import CROP as MASK_CROP
from neonet3d.generation.objectives import ControlObjective, DetailObjective, FlowObjective
from neonet3d.generation.texture import PROFILE
from neonet3d.generation.train import require_masks
from neonet3d.generation.train_detail import CROP
from neonet3d.generation.unet import FlowUNet
from neonet3d.types import LabelSchema, Shape

MEASURED_STEPS = 3  # the fastest counts: what disturbs a step makes it slower, never faster


@dataclass(frozen=True)
class StageForecast:
    """One training loop.

    Attributes:
        peak_bytes: of the device while it trains, without the cohort.
    """

    name: str
    steps: int
    seconds_per_step: float
    peak_bytes: int

    @property
    def seconds(self) -> float:
        return self.steps * self.seconds_per_step


@dataclass(frozen=True)
class Forecast:
    """Every training loop. What is fitted in closed form, and drawn to fit it on, is not in it.

    Attributes:
        shape: voxels of a patch.
        patch_bytes: of all training patches with their masks, and of one moved copy.
        latent_bytes: of all encodings with their masks, and of the residuals.
    """

    stages: tuple[StageForecast, ...]
    shape: Shape
    cases: int
    patch_bytes: int
    latent_bytes: int

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def peak_bytes(self) -> int:
        """Of the largest stage, beside patches and latents; on a GPU those are in main memory."""
        largest = max(stage.peak_bytes for stage in self.stages)
        return largest + self.patch_bytes + self.latent_bytes


def forecast_stage(
    name: str,
    build_objective: Callable[[], nn.Module],
    example_batch: Callable[[], Sequence[Tensor]],
    loop: LoopConfig,
) -> StageForecast:
    """Measure a few steps of one training loop.

    Args:
        build_objective: an untrained module whose ``forward(*batch)`` is a scalar loss.
        example_batch: a batch of the real sizes.
    """
    here = fabric()
    on_cuda = here.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_cuda else 0
    objective = channels_last(seeded(0, build_objective))
    trainable = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=loop.learning_rate, fused=True)
    wrapped, optimizer = here.setup(objective, optimizer)
    average = [p.detach().clone() for p in trainable]
    batch = [here.to_device(part) for part in example_batch()]
    objective.train()
    kept, seconds = _Kept([*objective.parameters(), *objective.buffers(), *batch]), []
    for step in range(1 + MEASURED_STEPS):
        began = time.perf_counter()
        if step == 0:
            with torch.autograd.graph.saved_tensors_hooks(kept.count, lambda x: x):
                loss = wrapped(*batch)
        else:
            loss = wrapped(*batch)
        here.backward(loss)
        here.clip_gradients(objective, optimizer, max_norm=GRADIENT_CLIP, error_if_nonfinite=False)
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())  # waits for a GPU
        seconds.append(time.perf_counter() - began)
    if on_cuda:
        peak = torch.cuda.max_memory_allocated() - before
    else:
        fixed = _bytes([*objective.parameters(), *objective.buffers(), *batch, *average])
        peak = fixed + 3 * _bytes(trainable) + kept.bytes  # gradient and two moments
    return StageForecast(name, loop.steps, min(seconds[1:]), peak)


def forecast_generator(fold: Fold, config: Config) -> Forecast:
    """Seconds and memory of ``train_generator`` and ``train_mask_generator`` on this fold.

    Raises:
        InputError: cases without masks.
    """
    require_masks(fold)
    training = fold.training
    grid, _ = fit_patches(training, shortest=SHORTEST_X * GRID_MULTIPLE)
    a, b, c = (n // DOWNSAMPLING for n in grid.shape)
    channels, schema = config.autoencoder.latent_channels, training.schema
    gain = torch.ones(channels)

    def unet() -> FlowUNet:
        return FlowUNet(channels, (a, b, c), config.unet, N_SCALES, len(schema) - 1)

    def autoencoder_objective() -> nn.Module:
        model = Autoencoder(config.autoencoder)
        return AutoencoderObjective(model, config.autoencoder.kl_weight)

    def flow_objective() -> nn.Module:
        return FlowObjective(unet(), gain, config.unet.null_label_fraction)

    def control_objective() -> nn.Module:
        frozen = unet()
        return ControlObjective(
            frozen,
            ControlNet(frozen, len(schema), config.controlnet.guidance),
            gain,
            schema,
            config.controlnet.foreground_weight,
            config.unet.null_label_fraction,
        )

    def detail_objective() -> nn.Module:
        return DetailObjective(DetailDecoder(len(schema), len(training), config.detail))

    def latents(loop: LoopConfig) -> list[Tensor]:
        n = loop.batch_size
        return [torch.randn(n, channels, a, b, c), torch.randint(2, (n,)), torch.zeros(n, N_SCALES)]

    loops = tuple(
        part.loop for part in (config.autoencoder, config.unet, config.controlnet, config.detail)
    )
    n_voxels, n_latent = grid.shape[0] * grid.shape[1] * grid.shape[2], channels * a * b * c
    of_map = n_voxels + 4 * (len(schema) - 1) * a * b * c  # and each class's share of latent voxels
    return Forecast(
        stages=(
            forecast_stage(
                "autoencoder",
                autoencoder_objective,
                lambda: [torch.rand(loops[0].batch_size, 1, *grid.shape) * 2 - 1],
                loops[0],
            ),
            forecast_stage("flow U-Net", flow_objective, lambda: latents(loops[1]), loops[1]),
            forecast_stage(
                "ControlNet",
                control_objective,
                lambda: [*latents(loops[2]), _label_maps(loops[2], grid.shape, schema)],
                loops[2],
            ),
            forecast_stage(
                "detail decoder",
                detail_objective,
                lambda: _detail_batch(loops[3], grid.shape, schema),
                loops[3],
            ),
            *_mask_stages(config.masks, grid.shape, schema),
        ),
        shape=grid.shape,
        cases=len(training),
        patch_bytes=2 * len(training) * n_voxels * (4 + 1),
        latent_bytes=n_views(len(training)) * len(training) * (2 * 4 * n_latent + of_map),
    )


def _mask_stages(
    config: MasksConfig, shape: Shape, schema: LabelSchema
) -> tuple[StageForecast, StageForecast]:
    channels = config.autoencoder.latent_channels
    x, y, z = (n // DOWNSAMPLING for n in shape)
    a, b, c = (min(n, MASK_CROP) for n in shape)
    alike = torch.ones(channels)

    def autoencoder_objective() -> nn.Module:
        model = MaskAutoencoder(config.autoencoder, len(schema))
        return MaskObjective(model, config.autoencoder.kl_weight, torch.ones(len(schema)))

    def flow_objective() -> nn.Module:
        unet = FlowUNet(channels, (x, y, z), config.flow, N_NUMBERS, 0)
        return FlowObjective(unet, alike, config.flow.null_label_fraction)

    def latents(n: int) -> list[Tensor]:
        return [
            torch.randn(n, channels, x, y, z),
            torch.randint(2, (n,)),
            torch.zeros(n, N_NUMBERS),
        ]

    first, second = config.autoencoder.loop, config.flow.loop
    return (
        forecast_stage(
            "mask autoencoder",
            autoencoder_objective,
            lambda: [_label_maps(first, (a, b, c), schema)],
            first,
        ),
        forecast_stage("mask flow", flow_objective, lambda: latents(second.batch_size), second),
    )


class _Kept:
    """Bytes of the storages that autograd keeps, each once, without those that stand anyway."""

    def __init__(self, standing: Iterable[Tensor]) -> None:
        self.bytes = 0
        self._seen = {tensor.untyped_storage().data_ptr() for tensor in standing}

    def count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _detail_batch(loop: LoopConfig, shape: Shape, schema: LabelSchema) -> list[Tensor]:
    x, y, z = (min(n, CROP) for n in shape)
    n, crop = loop.batch_size, (x, y, z)
    scan, decoded = torch.rand(2, n, 1, *crop) * 2 - 1
    return [scan, decoded, _label_maps(loop, crop, schema), torch.randn(n, PROFILE)]


def _label_maps(loop: LoopConfig, shape: Shape, schema: LabelSchema) -> Tensor:
    return torch.randint(len(schema), (loop.batch_size, *shape), dtype=torch.uint8)
