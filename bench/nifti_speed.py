"""How fast a .nii.gz is read with its CRC, and written, beside nibabel: docs/results/nifti.md.

python bench/nifti_speed.py [docs/results/nifti.md]

The volume is a phantom's scan on a hospital's grid. Both of a pair take turns in one process, and
the figure is the median; a machine that is busy with other work makes all of them longer.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

from neonet3d.cohort.nifti import read_nifti
from neonet3d.cohort.phantom.writer import write_phantom_cohort
from neonet3d.cohort.volume import Volume, read_volume
from neonet3d.config import load_config

ROUNDS = 15
QUIET = 0.5  # load average of a machine that does nothing else
SPACING = "phantom.spacing_mm=[1.2, 1.2, 2.5]"


def seconds(*ways: Callable[[], object]) -> list[float]:
    """Median of each way; they take turns, so that another load falls on all of them alike."""
    for way in ways:
        way()
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for way, times in zip(ways, taken, strict=True):
            started = time.perf_counter()
            way()
            times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in taken]


def machine() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {len(names)} cores, {platform.system()}"


def measure(folder: Path) -> str:
    settings = load_config("cpu", overrides=[SPACING, "phantom.n=2"])
    cohort = write_phantom_cohort(folder / "phantom", settings.phantom, seed=0)
    scan = cohort.cases[0].read_image()
    # Scanners deliver whole numbers of 12 bits.
    whole = np.rint(scan.data * (4095 / scan.data.max())).astype(np.int16)
    path, ours, theirs = (folder / f"{name}.nii.gz" for name in ("scan", "ours", "theirs"))
    nib.save(nib.Nifti1Image(whole, scan.affine), path)
    volume = Volume(whole.astype(np.float32), scan.affine)

    before = os.getloadavg()[0]
    stored = seconds(
        lambda: np.asanyarray(nib.load(path).dataobj), lambda: read_nifti(path, "scan")
    )
    ready = seconds(
        lambda: nib.as_closest_canonical(nib.load(path)).get_fdata(dtype=np.float32),
        lambda: read_volume(path),
    )
    written = seconds(
        lambda: nib.save(nib.Nifti1Image(volume.data, volume.affine), theirs),
        lambda: volume.write(ours, durable=False),
    )
    rows = [
        ("read, voxels as stored", stored),
        ("read, float32 in RAS+ (ours also refuses NaN, Inf and a constant image)", ready),
        ("write float32", written),
    ]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = [
        "# Reading and writing .nii.gz",
        "",
        "What `python bench/nifti_speed.py` printed. nibabel reads without checking the CRC;",
        "neonet3d checks it, and the length, to the end of the stream.",
        "",
        f"* {datetime.now(UTC):%Y-%m-%d}, commit {commit}, {machine()}; "
        f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after"
        + (" (busy with other work too)" if before > QUIET else ""),
        f"* Python {platform.python_version()}, nibabel {version('nibabel')}, "
        f"isal {version('isal')}, numpy {version('numpy')}",
        f"* one phantom scan of {'x'.join(map(str, scan.shape))} voxels "
        f"({'x'.join(f'{s:g}' for s in scan.spacing_mm)} mm), 12 bits; median of {ROUNDS}",
        "",
        "| | nibabel | neonet3d | times as fast |",
        "|---|---|---|---|",
        *(
            f"| {what} | {a * 1e3:.0f} ms | {b * 1e3:.0f} ms | {a / b:.2f} |"
            for what, (a, b) in rows
        ),
        "",
        f"Size of the written file: nibabel {theirs.stat().st_size / 1e6:.2f} MB, "
        f"neonet3d {ours.stat().st_size / 1e6:.2f} MB.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        text = measure(Path(temporary))
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
