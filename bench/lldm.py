"""The 3D-LLDM experiment on the hippocampus and on phantom ROIs: docs/results/3d-lldm.md.

python bench/lldm.py WORK_FOLDER docs/results/3d-lldm.md

Runs ``neonet3d study augmentation`` on both cohorts (an interrupted run goes on) and puts the two
reports on one page, their figures beside it. Environment: NEONET3D_DATA is the folder of the public
data, NOTE a sentence for the head of the page, DATASETS which of the two, SETTINGS further
overrides, to try the path out.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from generator_data import cohorts
from segmentation import command, commit

from neonet3d.config import load_config

PRESET = "cpu"
SETTINGS = os.environ.get("SETTINGS", "").split()
DATASETS = os.environ.get("DATASETS", "phantom hippocampus").split()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    text = ["# The 3D-LLDM experiment", "", f"Written by `bench/lldm.py`, commit {commit()}."]
    if note := os.environ.get("NOTE"):
        text.append(note)
    settings = [word for one in SETTINGS for word in ("--set", one)]
    config = load_config(PRESET, overrides=SETTINGS)
    found = cohorts(config, options.work, None)
    for name in DATASETS:
        cohort, splits = found[name]
        run = options.work / f"study-{name}"
        words = ("study", "augmentation", cohort, run, "--splits", splits, "--fold", "0")
        command(options.work / f"{name}.json", *words, "--preset", PRESET, *settings)
        picture = options.page.with_name(f"3d-lldm-{name}.png")
        shutil.copyfile(run / "curve.png", picture)
        report = (run / "report.md").read_text().replace("](curve.png)", f"]({picture.name})")
        text += ["", *(f"#{line}" if line.startswith("#") else line for line in report.split("\n"))]
    options.page.write_text("\n".join(text).rstrip() + "\n")


if __name__ == "__main__":
    main()
