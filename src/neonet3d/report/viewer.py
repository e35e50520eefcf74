"""``viewer.html``: real and synthetic volumes with their masks, side by side, in 3D.

One file that opens from disk: NiiVue (vendored, BSD-2-Clause) and the volumes are in it, and its
content security policy lets it reach nothing else. It stands beside ``report.html``, which stays
without a script: what is printed, mailed and archived should need none.
"""

from __future__ import annotations

import base64
import gzip
import json
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.volume import Volume, write_atomically
from neonet3d.report.cases import read_pairs
from neonet3d.report.html import environment
from neonet3d.report.palette import DARK, LIGHT, class_colours
from neonet3d.report.pictures import WINDOW, Labelled, Pair, reference_level
from neonet3d.study.results import StudyResults
from neonet3d.types import LabelSchema

NIIVUE = "vendor/niivue-0.69.0.umd.js"
THROUGH = 40  # opacity of the liver, of 255: what lies in it is to be seen
STEPS = 4000  # of the grey values of a volume: twelve bits, as scanners store them


def write_viewer(run: Path) -> Path:
    """Write ``run/viewer.html`` from the pairs that the report shows.

    Cases appear by their number in the cohort's table. The files that are in the page hold no name
    and no description.

    Raises:
        InputError: a patch of a held-out case is missing in the run folder.
    """
    results, crops = StudyResults.read(run), Cohort.open(run / "crops")
    pairs = read_pairs(run, crops, results)
    page = (
        environment()
        .get_template("viewer.html.j2")
        .render(
            r=results,
            volumes=_embedded([_volumes(pair, crops.schema) for pair in pairs]),
            labels=_embedded(label_colours(crops.schema.names)),
            numbers=[(pair.number, pair.outcome) for pair in pairs],
            colours=class_colours(results.classes),
            niivue=files("neonet3d.report").joinpath(NIIVUE).read_text("utf-8"),
            light=LIGHT,
            dark=DARK,
        )
    )
    out = run / "viewer.html"
    write_atomically(out, page.encode())
    return out


def _embedded(data: object) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data).replace("<", "\\u003c")


def _volumes(pair: Pair, schema: LabelSchema) -> dict[str, str]:
    """Base64 of gzipped NIfTI."""
    mask = pair.real.mask
    return {
        "real": _packed(in_steps(pair.real, schema)),
        "synthetic": _packed(in_steps(pair.synthetic, schema)),
        "mask": _packed(mask.with_data(mask.data.astype(np.uint8))),
    }


def in_steps(shown: Labelled, schema: LabelSchema) -> Volume:
    """Grey values from 0 to ``STEPS``, with the window of the report's pictures.

    Files are a quarter as large as floats, and look the same.
    """
    scaled = shown.image.data / (WINDOW * reference_level(shown, schema))
    return shown.image.with_data((scaled.clip(0, 1) * STEPS).round().astype(np.int16))


def _packed(volume: Volume) -> str:
    """A NIfTI around the world's origin, with no name of the scan it was."""
    affine = np.diag([*volume.spacing_mm, 1.0])
    affine[:3, 3] = -(np.array(volume.shape) - 1) / 2 * np.array(volume.spacing_mm)
    payload = nib.Nifti1Image(volume.data, affine).to_bytes()
    return base64.b64encode(gzip.compress(payload, mtime=0)).decode()


def label_colours(classes: tuple[str, ...]) -> dict[str, list[int] | list[str]]:
    """A NiiVue label map: position = voxel value; the background is clear."""
    colours = class_colours(classes)
    rgb = [[0, 0, 0], *(_rgb(colours[name]) for name in classes[1:])]
    red, green, blue = ([colour[i] for colour in rgb] for i in range(3))
    return {
        "R": red,
        "G": green,
        "B": blue,
        "A": [0, *(THROUGH if name == "liver" else 255 for name in classes[1:])],
        "I": list(range(len(classes))),
        "labels": list(classes),
    }


def _rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
