"""Middle slices of real cases, and of the synthetic ones on their masks below: a PNG to look at.

python bench/pairs_picture.py REAL_COHORT SYNTHETIC_COHORT OUT.png
"""

import sys

import matplotlib
import numpy as np

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import fit_patches, load_patches

CASES = 10
PLANES = {"axial": 2, "sagittal": 0}


def main(real_folder: str, synthetic_folder: str, out: str) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    synthetic = Cohort.open(synthetic_folder)
    synthetic = synthetic.subset(synthetic.cases[:CASES])
    names = {case.name for case in synthetic}
    every = Cohort.open(real_folder)
    real = every.subset(case for case in every if case.name in names)
    grid, _ = fit_patches(synthetic)
    _, normaliser = fit_patches(every)
    rows = [load_patches(part, grid, normaliser).images.numpy() for part in (real, synthetic)]
    figure, axes = plt.subplots(4, CASES, figsize=(CASES * 1.2, 5.6))
    for p, axis in enumerate(PLANES.values()):
        for r, images in enumerate(rows):
            for column, image in enumerate(images):
                slice_ = np.take(image, image.shape[axis] // 2, axis=axis)
                panel = axes[2 * p + r, column]
                panel.imshow(slice_.T, cmap="gray", vmin=-1, vmax=1, origin="lower")
    for panel in axes.flat:
        panel.axis("off")
    figure.tight_layout(pad=0.1)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main(*sys.argv[1:])
