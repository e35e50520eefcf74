"""neonet3d classify explain: where a PattenNet looks, as NIfTI maps that lie on the scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neonet3d.classification.predict import Classifier
    from neonet3d.cohort.cohort import Cohort
    from neonet3d.config import SamplerConfig


def write_maps(
    out: Path,
    classifier: Classifier,
    cases: Cohort,
    generator: Path | None,
    sampler: SamplerConfig,
    *,
    allow_no_tumour: bool,
) -> list[str]:
    """Write every map of every case to a new folder; the kinds of maps.

    Raises:
        InputError: other classes, cases without a tumour, or a generator of another fold.
    """
    import numpy as np

    from neonet3d.classification.explain import explain
    from neonet3d.classification.tumourless import refuse_without_tumour
    from neonet3d.cohort.folder import new_folder
    from neonet3d.cohort.patches import load_patches, patch_window
    from neonet3d.cohort.volume import Volume
    from neonet3d.generation.counterfactual import draw_counterfactuals
    from neonet3d.generation.generator import LatentGenerator
    from neonet3d.report.predictions import require_sibling

    card = classifier.card
    card.refuse_other_classes(cases.schema)
    if not allow_no_tumour:
        refuse_without_tumour(cases)
    drawing = None if generator is None else LatentGenerator.load(generator)
    if drawing is not None:
        require_sibling(drawing.card, card, cases)
    with new_folder(out) as folder:
        found = explain(classifier, load_patches(cases, *card.reading))
        maps = {
            "attention": (card.grid, found.attention),
            "grad_cam": (card.grid, found.grad_cam),
            "occlusion": (card.grid, found.occlusion),
        }
        if drawing is not None:
            drawn = draw_counterfactuals(
                drawing,
                load_patches(cases, *drawing.card.reading),
                steps=sampler.steps,
                guidance=sampler.guidance,
            )
            invert = drawing.card.reading.normaliser.invert
            difference = invert(drawn.positive.numpy()) - invert(drawn.negative.numpy())
            maps["counterfactual"] = (drawing.card.grid, difference)
        for index, case in enumerate(cases):
            scan = case.read_image()
            for name, (grid, values) in maps.items():
                window = patch_window(scan, grid, name=case.name)
                data = np.asarray(values[index], dtype=np.float32)
                written = Volume(data, window.affine(scan), user_axes=scan.user_axes)
                written.write(folder / f"{case.name}_{name}.nii.gz")
    return list(maps)
