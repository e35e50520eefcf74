"""neonet3d crop and place-back: TLCR and its inverse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neonet3d.cli.options import (
    AsJson,
    CohortPath,
    ConfigFile,
    OutPath,
    Overrides,
    Preset,
    resolve,
    show,
)


def crop(
    cohort: CohortPath,
    out: OutPath,
    segmenter: Annotated[
        Path | None,
        typer.Option(help="Crop to NeoSeg's masks instead of the cohort's.", show_default=False),
    ] = None,
    all_lesions: Annotated[
        bool,
        typer.Option(
            "--all-lesions",
            help="One patch per lesion (CASE-1, CASE-2, ...) instead of the index lesion's.",
        ),
    ] = False,
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """TLCR: cut the region around the tumour of each case into a new cohort.

    With --preset liver, or --set roi.around=liver, the whole liver.
    """
    import tempfile

    from neonet3d.cohort.cohort import Cohort
    from neonet3d.cohort.folder import require_new
    from neonet3d.engine.progress import progress
    from neonet3d.segmentation.crop_record import cut_without_tumour
    from neonet3d.segmentation.predict import (
        Segmenter,
        kept_for_cropping,
        lesion_probability,
        predict_cases,
    )
    from neonet3d.segmentation.tlcr import crop_cohort

    settings = resolve(preset, config, overrides, None)
    require_new(out)
    opened = Cohort.open(cohort)
    with tempfile.TemporaryDirectory() as folder:
        if segmenter is not None:
            reader = Segmenter.load(segmenter)
            masks = predict_cases(reader, opened, Path(folder), kept_for_cropping(reader))
            opened = opened.with_overlaid_masks(masks, reader.card.schema_)
        with progress("cropping", len(opened)) as advance:
            crops = crop_cohort(
                opened,
                out,
                settings.roi,
                advance,
                all_lesions=all_lesions,
                tumour_probability=lesion_probability(Path(folder)),
                allow_empty=segmenter is not None,
            )
    seen = 0
    if segmenter is not None:
        seen = reader.card.count_training_cases(Cohort.open(cohort))
    lost = cut_without_tumour(crops)
    sentence = f"{out}: {len(crops)} patches of {settings.roi.shape} voxels."
    if lost:
        sentence += (
            f" {len(lost)} of them show no tumour, but the liver or the middle of the scan, since "
            f"there is none in the mask (the first is {lost[0]}); classify refuses them without "
            "--allow-no-tumour."
        )
    if seen:
        sentence += (
            f" {seen} of the scans trained the segmenter, so their masks are better than those of "
            "new patients."
        )
    show(
        {
            "cohort": str(out),
            "cases": len(crops),
            "without_tumour": lost,
            "trained_the_segmenter": seen,
        },
        as_json=as_json,
        sentence=sentence,
    )


def place_back(
    crops: Annotated[Path, typer.Argument(help="Folder that 'crop' wrote.", show_default=False)],
    case: Annotated[str, typer.Argument(help="Name of the patch in it.", show_default=False)],
    mask: Annotated[
        Path, typer.Argument(help="Mask (NIfTI) on the grid of the patch.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Argument(help="File to write, .nii or .nii.gz.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Take a mask that was drawn in a patch back to the grid of the scan it was cut from.

    The scan itself is not needed; outside the patch the mask is background.
    """
    from neonet3d.segmentation.crop_record import place_file_back

    placed = place_file_back(crops, case, mask, out)
    voxels = int((placed.data > 0).sum())
    show(
        {"mask": str(out), "shape": list(placed.shape), "voxels": voxels},
        as_json=as_json,
        sentence=f"{out}: {voxels} voxels drawn, on the scan's grid {placed.shape}.",
    )
