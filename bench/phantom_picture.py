"""Phantom patients to look at: scan and region of interest, with and without masks.

python bench/phantom_picture.py OUT.png
"""

import sys

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from neonet3d.cohort.phantom.patient import PhantomCase, draw_label, simulate_patient, simulate_roi
from neonet3d.config import load_config

PATIENTS = 6
LIVER, PORTAL_VEIN, HEPATIC_VEIN, TUMOUR = 1, 2, 3, 4
COLOURS = {LIVER: "#009e73", PORTAL_VEIN: "#56b4e9", HEPATIC_VEIN: "#d55e00", TUMOUR: "#f0e442"}


def main(out: str) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    config = load_config("cpu")
    seeds = sorted(range(PATIENTS), key=lambda seed: draw_label(seed).severity)
    figure, axes = plt.subplots(4, PATIENTS, figsize=(2.4 * PATIENTS, 8.4))
    for column, seed in enumerate(seeds):
        scan = simulate_patient(
            seed,
            spacing_mm=config.phantom.spacing_mm,
            field_of_view_mm=config.phantom.field_of_view_mm,
        )
        roi = simulate_roi(seed, shape=config.roi.shape, spacing_mm=config.roi.spacing_mm)
        for row, case in enumerate((scan, roi)):
            draw(axes[2 * row, column], case)
            draw(axes[2 * row + 1, column], case)
            outline(axes[2 * row + 1, column], case)
        title = f"z = {scan.parameters['severity']:.1f}, pni = {scan.pni}"
        axes[0, column].set_title(title, fontsize=9)
    figure.tight_layout(pad=0.2)
    figure.savefig(out, dpi=80)


def tumour_slice(case: PhantomCase) -> int:
    """The axial slice with most tumour."""
    return int((case.label_map == TUMOUR).sum((0, 1)).argmax())


def draw(panel: Axes, case: PhantomCase) -> None:
    """As a radiologist sees it: the patient's right on the left, front at the top."""
    liver = np.median(case.image[case.label_map == LIVER])
    image = case.image[::-1, :, tumour_slice(case)].T / liver
    panel.imshow(image, cmap="gray", vmin=0, vmax=1.3, origin="lower")
    panel.axis("off")


def outline(panel: Axes, case: PhantomCase) -> None:
    label_map = case.label_map[::-1, :, tumour_slice(case)].T
    for value, colour in COLOURS.items():
        inside = label_map >= value if value == LIVER else label_map == value
        if inside.any():
            panel.contour(inside, levels=[0.5], colors=[colour], linewidths=0.7)


if __name__ == "__main__":
    main(*sys.argv[1:])
