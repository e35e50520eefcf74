"""Training steps of ``bench/generator.py``: FLOPs, seconds, share of the peak, memory.

python bench/generator_speed.py COHORT --fold K/N | --splits FILE  ours | rival | flops

A process of its own for each, which prints JSON. Our steps are those that ``train_generator``
takes: its ``train_loop`` is replaced by one that measures a few steps of the objective it is
handed, with the batches it is handed, and leaves the weights as they are. The peak is the best
GFLOP/s of a list of bf16 convolutions, forwards, in the same process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from inference_speed import _status_mb
from monai_ldm import BATCH, AutoencoderTraining
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from neonet3d.cli.options import training_fold
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.patches import fit_patches, load_patches
from neonet3d.config import Config, LoopConfig, load_config
from neonet3d.engine.device import fabric
from neonet3d.generation import train as training

PRESET = "cpu"
STEPS = int(os.environ.get("SPEED_STEPS", "20"))
CONVOLUTIONS = (  # batch, channels in and out, voxels
    (2, 64, 64, (24, 24, 12)),
    (8, 64, 64, (12, 12, 6)),
    (8, 128, 128, (12, 12, 6)),
    (8, 128, 128, (16, 16, 16)),
    (4, 256, 256, (12, 12, 12)),
    (2, 32, 32, (48, 48, 24)),
)


class EnoughError(Exception):
    """Both stages have been measured."""


@dataclass
class Probe:
    """Stands in for ``train_loop``; what it measured of each stage is in ``found``."""

    flops_too: bool
    found: dict[str, dict[str, float]] = field(default_factory=dict)

    def __call__(
        self,
        objective: nn.Module,
        draw_batch: Callable[[torch.Generator], Sequence[Tensor]],
        config: LoopConfig,
        *,
        description: str,
        **_: object,
    ) -> float:
        here, generator = fabric(), torch.Generator().manual_seed(0)
        before = resident()
        weights = [p for p in objective.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(weights, lr=0.0, weight_decay=0.0, fused=True)
        wrapped, optimiser = here.setup(objective, optimiser)
        objective.train()

        def gradient() -> None:
            here.backward(wrapped(*(here.to_device(part) for part in draw_batch(generator))))

        def step() -> None:
            gradient()
            here.clip_gradients(objective, optimiser, max_norm=1.0, error_if_nonfinite=False)
            optimiser.step()
            optimiser.zero_grad()

        seconds = timed(step)
        measured = {"seconds": seconds, "peak_mb": _status_mb("VmHWM") - before}
        if self.flops_too:
            with FlopCounterMode(display=False) as counter:
                gradient()
            optimiser.zero_grad()
            measured["flops"] = float(counter.get_total_flops())
        self.found[description.partition(": ")[2]] = measured
        objective.eval()
        if "U-Net" in description:
            raise EnoughError
        return float("nan")


def resident() -> float:
    """Resident MB now; Linux forgets the peak so far."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mb("VmRSS")


def timed(step: Callable[[], None]) -> float:
    """Median seconds of a step, after three that warm up."""
    taken = []
    for _ in range(3 + STEPS):
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[3:])


def ours(fold: Fold, config: Config, *, flops_too: bool) -> dict[str, dict[str, float]]:
    probe = Probe(flops_too)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(training, "train_loop", probe),
        suppress(EnoughError),
    ):
        training.train_generator(fold, config, Path(folder))
    return probe.found


def rival(fold: Fold) -> dict[str, dict[str, float]]:
    """MONAI's autoencoder with its discriminator, in float32 and in bf16."""
    patches = load_patches(fold.training, *fit_patches(fold.training))
    batch = fabric().to_device(patches.images[:BATCH])[:, None]
    found = {}
    for name, bf16 in (("bf16", True), ("float32", False)):
        before = resident()
        monai = AutoencoderTraining(len(patches), bf16=bf16)
        monai.warmup = 0  # the discriminator trains too
        seconds = timed(lambda monai=monai: monai.step(batch))  # type: ignore[misc]
        found[name] = {"seconds": seconds, "peak_mb": _status_mb("VmHWM") - before}
    return found


@torch.inference_mode()
def peak_gflops() -> float:
    """The best of ``CONVOLUTIONS``, as they are and channels last."""
    best = 0.0
    for (n, c_in, c_out, shape), last in product(CONVOLUTIONS, (False, True)):
        order = torch.channels_last_3d if last else torch.contiguous_format
        x, w = torch.randn(n, c_in, *shape), torch.randn(c_out, c_in, 3, 3, 3)
        x, w = (fabric().to_device(t.bfloat16()).contiguous(memory_format=order) for t in (x, w))

        def convolve(x: Tensor = x, w: Tensor = w) -> None:
            F.conv3d(x, w, padding=1)
            if x.is_cuda:
                torch.cuda.synchronize()

        flops = 2.0 * 27 * c_in * c_out * x[:, 0].numel()
        best = max(best, flops / timed(convolve) / 1e9)
    return best


def fractions(fold: Fold, config: Config) -> dict[str, object]:
    """GFLOP/s of both training steps over the peak; measured before and after, the higher."""
    before = peak_gflops()
    found = ours(fold, config, flops_too=True)
    peak = max(before, peak_gflops())
    for stage in found.values():
        stage["gflops"] = stage["flops"] / stage["seconds"] / 1e9
        stage["peak_fraction"] = stage["gflops"] / peak
    return {"peak_gflops": peak, "stages": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--fold", metavar="K/N")
    parser.add_argument("--splits", type=Path, metavar="FILE")
    parser.add_argument("what", choices=("ours", "rival", "flops"))
    options = parser.parse_args()
    config = load_config(PRESET)
    fold = training_fold(options.cohort, options.fold, config.seed, options.splits)
    if options.what == "rival":
        print(json.dumps(rival(fold)))
    elif options.what == "ours":
        print(json.dumps(ours(fold, config, flops_too=False)))
    else:
        print(json.dumps(fractions(fold, config)))


if __name__ == "__main__":
    main()
