"""Seconds, memory and Dice of whole-scan segmentation, beside MONAI's sliding window.

python bench/inference_speed.py MODEL COHORT [--fold K/N] [--splits FILE] [--cases N] [--json FILE]

Three ways, with the same network, window size, overlap, Gaussian blending, batch of windows,
network grid and resampling: MONAI's ``sliding_window_inference`` in float32, as it is called by
default; MONAI's in the precision that neonet3d uses; and ``Segmenter.segment``. The ways take turns
on each scan, in one process, and the figure is the median; CPU seconds suffer less from the work of
others. Peak memory is that of a process of its own for each way, on the largest scan: when model
and scan have been read, Linux is asked to forget the peak so far (``/proc/self/clear_refs``), and
the figure is the peak after one segmentation (``VmHWM``) minus what was resident before.
(``ru_maxrss`` starts at the peak of the parent.)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from nifti_speed import QUIET, machine
from torch import Tensor, nn

from neonet3d.cli.options import cases_to_apply
from neonet3d.cohort.cohort import Case
from neonet3d.cohort.geometry import Grid, Window, resample_image
from neonet3d.cohort.volume import Volume
from neonet3d.engine.artefact import load_weights
from neonet3d.engine.device import device_summary, fabric
from neonet3d.metrics.overlap import dice
from neonet3d.segmentation.predict import Segmenter
from neonet3d.segmentation.tiling import OVERLAP, lay_windows
from neonet3d.segmentation.windows import windows_at_once
from neonet3d.types import LabelMap

ROUNDS = 3
WAYS = ("MONAI, float32", "MONAI, same precision", "neonet3d")


class Stopwatch(nn.Module):
    """A network; it and its copies together count how long they took and the windows they saw."""

    seconds, windows = 0.0, 0

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        started = time.perf_counter()
        y: Tensor = self.network(x)
        Stopwatch.seconds += time.perf_counter() - started
        Stopwatch.windows += len(x)
        return y


@torch.inference_mode()
def with_monai(segmenter: Segmenter, image: Volume, *, autocast: bool) -> LabelMap:
    """The whole scan in MONAI's windows, on the same grids; nothing is interpolated in vain."""
    here, card = fabric(), segmenter.card
    assert card.normaliser is not None
    window = lay_windows(image, card.grid, None).window
    signal = image.with_data(card.normaliser.apply(image.data, None, name="scan") + 1)
    values = here.to_device(torch.from_numpy(resample_image(signal, window) - 1))
    with here.autocast() if autocast else nullcontext():
        logits = sliding_window_inference(
            values[None, None],
            card.grid.shape,
            windows_at_once(),
            segmenter.network,
            overlap=OVERLAP,
            mode="gaussian",
        )[0]
    if window.grid.shape == image.shape and np.allclose(window.grid.spacing_mm, image.spacing_mm):
        return logits.argmax(0).to(torch.uint8).cpu().numpy()
    probability = logits.float().softmax(0).cpu().numpy()
    x, y, z = (-np.array(window.first_mm)).tolist()
    back, affine = Window((x, y, z), Grid(image.shape, image.spacing_mm)), window.affine(image)
    on_scan = np.stack([resample_image(Volume(one, affine), back) for one in probability])
    return on_scan.argmax(0).astype(np.uint8)


def load_in_float32(folder: Path) -> Segmenter:
    """The same weights as they were trained, for MONAI, with or without autocast."""
    segmenter = Segmenter.load(folder)
    network = segmenter.network.float()
    load_weights(folder, network, segmenter.card)
    return Segmenter(network, segmenter.card)


def way(name: str, segmenter: Segmenter) -> Callable[[Volume], LabelMap]:
    if name == "neonet3d":
        return lambda image: segmenter.segment(image, keep=()).label_map.data
    return lambda image: with_monai(segmenter, image, autocast=name != WAYS[0])


def measure(
    segmenter: Segmenter, in_float32: Segmenter, cases: list[Case]
) -> list[dict[str, object]]:
    """One row for each scan and way."""
    schema = segmenter.card.schema_
    labels = {name: value for name, value in schema.as_mapping().items() if value > 0}
    watched, theirs = (
        Segmenter(Stopwatch(one.network), one.card, one.localiser)
        for one in (segmenter, in_float32)
    )
    rows: list[dict[str, object]] = []
    for number, case in enumerate(cases):
        image, mask = case.read_with_mask()
        taken: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in WAYS}
        found: dict[str, LabelMap] = {}
        for _ in range(ROUNDS + (number == 0)):  # the first of all is a warm-up
            for name in WAYS:
                Stopwatch.seconds, Stopwatch.windows = 0.0, 0
                started, busy = time.perf_counter(), time.process_time()
                found[name] = way(name, watched if name == "neonet3d" else theirs)(image)
                total, used = time.perf_counter() - started, time.process_time() - busy
                taken[name].append((total, used, Stopwatch.seconds, Stopwatch.windows))
        for name in WAYS:
            seconds, cpu, network, windows = zip(*taken[name][-ROUNDS:], strict=True)
            rows.append(
                {
                    "case": case.name,
                    "way": name,
                    "seconds": statistics.median(seconds),
                    "cpu_seconds": statistics.median(cpu),
                    "network_seconds": statistics.median(network),
                    "windows": windows[0],
                    "dice": dice(found[name], mask.data, labels),
                }
            )
    return rows


def memory_mb(name: str, model: Path, case: Case) -> float:
    """Peak resident memory of one segmentation in a process of its own, above model and scan."""
    command = [sys.executable, __file__, str(model), str(case.image_path), "--peak-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_peak_mb(name: str, model: Path, image_path: Path) -> float:
    from neonet3d.cohort.volume import read_volume

    segmenter = Segmenter.load(model) if name == "neonet3d" else load_in_float32(model)
    image = read_volume(image_path)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_mb("VmRSS")
    way(name, segmenter)(image)
    return _status_mb("VmHWM") - before


def _status_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def as_markdown(result: dict[str, object], rows: list[dict[str, object]]) -> str:
    def mean(name: str, key: str) -> float:
        return statistics.mean(float(row[key]) for row in rows if row["way"] == name)  # type: ignore[arg-type]

    def mean_dice(name: str, label: str) -> float:
        return float(np.nanmean([row["dice"][label] for row in rows if row["way"] == name]))  # type: ignore[index]

    memory: dict[str, float] = result["peak_memory_mb"]  # type: ignore[assignment]
    ours = mean("neonet3d", "seconds")
    labels = list(rows[0]["dice"])  # type: ignore[call-overload]
    return "\n".join(
        [
            "# Segmenting whole scans",
            "",
            "What `python bench/inference_speed.py` printed; its docstring says how it measures.",
            "",
            f"* {result['when']}, commit {result['commit']}, {result['machine']}; "
            f"{result['device']}; load average {result['load']}"
            + (" (busy with other work too)" if float(str(result["load"])) > QUIET else ""),
            f"* {result['versions']}",
            f"* {result['scans']} scans that did not train the model, windows of "
            f"{result['patch']} voxels, {result['localiser']}; median of {ROUNDS} rounds, mean "
            "over scans",
            "",
            "| | s per scan | of it in the network | CPU s | windows | neonet3d is faster by "
            "(by CPU s) | peak MB |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {name} | {mean(name, 'seconds'):.2f} | {mean(name, 'network_seconds'):.2f} | "
                f"{mean(name, 'cpu_seconds'):.2f} | {mean(name, 'windows'):.1f} | "
                f"{mean(name, 'seconds') / ours:.2f} "
                f"({mean(name, 'cpu_seconds') / mean('neonet3d', 'cpu_seconds'):.2f}) | "
                f"{memory[name]:.0f} |"
                for name in WAYS
            ),
            "",
            "| mean Dice | " + " | ".join(labels) + " |",
            "|---" * (len(labels) + 1) + "|",
            *(
                f"| {name} | "
                + " | ".join(f"{mean_dice(name, label):.4f}" for label in labels)
                + " |"
                for name in WAYS
            ),
            "| neonet3d minus MONAI, same precision | "
            + " | ".join(
                f"{mean_dice('neonet3d', label) - mean_dice(WAYS[1], label):+.4f}"
                for label in labels
            )
            + " |",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--fold", metavar="K/N")
    parser.add_argument("--splits", type=Path, metavar="FILE")
    parser.add_argument("--cases", type=int, metavar="N", help="only the first so many")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--peak-of", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(own_peak_mb(options.peak_of, options.model, options.cohort))
        return
    segmenter = Segmenter.load(options.model)
    cohort = cases_to_apply(options.cohort, options.fold, segmenter.card.seed, options.splits)
    cohort = cohort.subset(cohort.cases[: options.cases])
    segmenter.card.refuse_training_cases(cohort)
    load = os.getloadavg()[0]
    rows = measure(segmenter, load_in_float32(options.model), list(cohort))
    largest = max(cohort, key=lambda case: case.read_image().data.size)
    result: dict[str, object] = {
        "when": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "machine": machine(),
        "device": device_summary(),
        "load": f"{load:.1f}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"MONAI {version('monai')}",
        "scans": len(cohort),
        "patch": "x".join(map(str, segmenter.card.grid.shape)),
        "localiser": "with a localiser" if segmenter.localiser else "without a localiser",
        "peak_memory_mb": {name: memory_mb(name, options.model, largest) for name in WAYS},
    }
    print(as_markdown(result, rows))
    if options.json:
        options.json.write_text(json.dumps(result | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
