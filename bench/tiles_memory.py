"""Seconds and peak memory of decoding and encoding a large volume, in tiles and whole.

python bench/tiles_memory.py [--shape 256 256 96] [--preset cpu] [--largest N] [--json FILE]

Each way in a process of its own, on an autoencoder of the preset's size with random weights (time
and memory do not depend on them). The peak is measured as in ``inference_speed.py``: Linux forgets
the peak so far when the model and its input stand, and the figure is what came on top, the output
included. On CUDA it is ``torch.cuda.max_memory_allocated`` over the same stretch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from inference_speed import _status_mb

from neonet3d.config import load_config
from neonet3d.engine.device import device_summary, fabric
from neonet3d.generation.autoencoder import DOWNSAMPLING, Autoencoder
from neonet3d.generation.tiles import LARGEST_TILE, decode_tiled, encode_tiled

WAYS = ("decode in tiles", "decode whole", "encode in tiles", "encode whole")


@torch.inference_mode()
def measure(way: str, shape: list[int], preset: str, largest: int) -> dict[str, float]:
    """Seconds and MB of one way, in this process."""
    here, config = fabric(), load_config(preset).autoencoder
    torch.manual_seed(0)
    model = Autoencoder(config).eval()
    here.to_device(model)
    latent = [n // DOWNSAMPLING for n in shape]
    size = (config.latent_channels, *latent) if way.startswith("decode") else (1, *shape)
    x = torch.randn(1, *size)
    limit = largest if way.endswith("in tiles") else sys.maxsize
    run = decode_tiled if way.startswith("decode") else encode_tiled
    with here.autocast():
        run(model, x[..., :16, :16, :16])  # kernels are chosen and loaded
        if here.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() / 2**20
        else:
            Path("/proc/self/clear_refs").write_text("5")
            before = _status_mb("VmRSS")
        started = time.perf_counter()
        run(model, x, limit)
        seconds = time.perf_counter() - started
    on_cuda = here.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() / 2**20 if on_cuda else _status_mb("VmHWM")
    return {"seconds": round(seconds, 2), "peak_mb": round(peak - before)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 256, 96])
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--largest", type=int, default=LARGEST_TILE, help="units of a tile")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    arguments = (options.shape, options.preset, options.largest)
    if options.way:
        print(json.dumps(measure(options.way, *arguments)))
        return
    rows = {}
    for way in WAYS:
        command = [sys.executable, *sys.argv, "--way", way]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows[way] = json.loads(done.stdout)
    shape = "x".join(map(str, options.shape))
    print(f"{shape} voxels, preset {options.preset}, {device_summary()}")
    for way, row in rows.items():
        print(f"{way:16} {row['seconds']:7.2f} s {row['peak_mb']:6.0f} MB")
    if options.json:
        options.json.write_text(json.dumps({"shape": options.shape, "ways": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
