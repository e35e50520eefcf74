"""How long TLCR takes beside reading the files that it crops: docs/results/tlcr.md.

python bench/tlcr_speed.py [docs/results/tlcr.md]

A scan and its mask on a hospital's grid, with smooth tissue and noise, so that gzip has work to do.
All ways take turns in one process, and the figure is the median; a machine that is busy with other
work makes all of them longer.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
from nifti_speed import QUIET, ROUNDS, machine, seconds
from scipy import ndimage

from neonet3d.cohort.case import Case
from neonet3d.cohort.volume import Volume
from neonet3d.config import RoiConfig, load_config
from neonet3d.segmentation.tlcr import crop_to_lesions, crop_to_tumour
from neonet3d.types import LabelSchema

SCHEMA = LabelSchema(("background", "liver", "portal_vein", "hepatic_vein", "tumour"))
LIVER, TUMOUR = SCHEMA.value("liver"), SCHEMA.value("tumour")
SHAPE, SPACING_MM = (320, 320, 96), (1.2, 1.2, 2.5)
SIGNAL = np.array([0, 900, 1200, 700, 500], dtype=np.float32)  # of 12 bits
N_SPECKS = 200


def write_case(folder: Path) -> Case:
    """A body with a liver, two veins and two tumours: int16 image, uint8 mask, gzipped."""
    rng = np.random.default_rng(0)
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    mask = np.zeros(SHAPE, np.uint8)
    mask[((x - 40) / 90) ** 2 + (y / 70) ** 2 + (z / 70) ** 2 < 1] = LIVER
    mask[(mask == LIVER) & (np.hypot(y - 10, z) < 6)] = SCHEMA.value("portal_vein")
    mask[(mask == LIVER) & (np.hypot(x - 30, z - 10) < 5)] = SCHEMA.value("hepatic_vein")
    for centre, radius_mm in (((60, -20, 10), 18), ((10, 30, -20), 8)):
        away = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
        mask[away < radius_mm**2] = TUMOUR
    body = (x / 170) ** 2 + (y / 120) ** 2 + (z / 130) ** 2 < 1
    tissue = SIGNAL[mask] + 300 * (body & (mask == 0))
    tissue += 800 * ndimage.gaussian_filter(rng.normal(0, 1, SHAPE), 6)
    noise = rng.normal(0, 30, (2, *SHAPE))
    image = np.hypot(tissue * body + noise[0], noise[1])
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])  # LPS, as scanners write
    paths = folder / "image.nii.gz", folder / "mask.nii.gz"
    nib.save(nib.Nifti1Image(np.clip(image, 0, 4095).astype(np.int16), affine), paths[0])
    nib.save(nib.Nifti1Image(mask, affine), paths[1])
    return Case("scan", "scan", None, None, False, *paths, SCHEMA)


def ways(image: Volume, mask: Volume, roi: RoiConfig) -> dict[str, Callable[[], object]]:
    """What a user may ask for, and what makes it hardest."""
    healthy = mask.with_data(np.where(mask.data == TUMOUR, LIVER, mask.data).astype(np.uint8))
    rng = np.random.default_rng(1)
    specks = mask.data.copy()
    specks[tuple(rng.integers(0, n, N_SPECKS) for n in SHAPE)] = TUMOUR
    specked = mask.with_data(specks)
    certainty = rng.random(SHAPE, dtype=np.float32)
    crop = crop_to_tumour(image, mask, SCHEMA, roi)
    return {
        "index lesion": lambda: crop_to_tumour(image, mask, SCHEMA, roi),
        "both lesions": lambda: crop_to_lesions(image, mask, SCHEMA, roi),
        "no tumour, so the liver's middle": lambda: crop_to_tumour(image, healthy, SCHEMA, roi),
        f"index lesion, {N_SPECKS} specks all over the scan, with a probability": lambda: (
            crop_to_tumour(image, specked, SCHEMA, roi, tumour_probability=certainty)
        ),
        "a mask placed back on the scan": lambda: crop.place_back(crop.label_map.data),
    }


def measure(folder: Path) -> str:
    case = write_case(folder)
    image, mask = case.read_with_mask()
    rois = {preset: load_config(preset).roi for preset in ("cpu", "gpu")}
    named: list[tuple[str, Callable[[], object]]] = [
        ("read image and mask, verified, in RAS+", case.read_with_mask)
    ]
    for preset, roi in rois.items():
        size = f"{'x'.join(map(str, roi.shape))} of {'x'.join(f'{s:g}' for s in roi.spacing_mm)} mm"
        named += [(f"{what} ({preset}: {size})", do) for what, do in ways(image, mask, roi).items()]
    before = os.getloadavg()[0]
    taken = seconds(*(do for _, do in named))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = [
        "# TLCR beside reading the scan",
        "",
        "What `python bench/tlcr_speed.py` printed. Cropping takes a volume that was read.",
        "",
        f"* {datetime.now(UTC):%Y-%m-%d}, commit {commit}, {machine()}; "
        f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after"
        + (" (busy with other work too)" if before > QUIET else ""),
        f"* Python {platform.python_version()}, numpy {version('numpy')}, "
        f"scipy {version('scipy')}, isal {version('isal')}",
        f"* one scan of {'x'.join(map(str, SHAPE))} voxels "
        f"({'x'.join(f'{s:g}' for s in SPACING_MM)} mm), int16 with mask uint8, "
        f"{sum(path.stat().st_size for path in folder.glob('*.nii.gz')) / 1e6:.1f} MB of gzip; "
        f"median of {ROUNDS}",
        "",
        "| | time | share of reading |",
        "|---|---|---|",
        *(
            f"| {what} | {t * 1e3:.0f} ms | {t / taken[0]:.2f} |"
            for (what, _), t in zip(named, taken, strict=True)
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        text = measure(Path(temporary))
    print(text)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
