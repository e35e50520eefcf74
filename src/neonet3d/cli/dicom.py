"""neonet3d dicom: what was found in a scan, back to where scans are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neonet3d.cli.options import AsJson, OutPath, show

if TYPE_CHECKING:
    from neonet3d.report.dicom_report import ReportedProbability


def dicom(
    series: Annotated[
        Path, typer.Argument(help="Folder of the DICOM series that was read.", show_default=False)
    ],
    out: OutPath,
    mask: Annotated[
        Path,
        typer.Option(help="Label map of the scan, as 'segment predict' wrote it: <case>.nii.gz."),
    ],
    segmenter: Annotated[
        Path, typer.Option(help="The segmenter that drew it: names of the classes, and version.")
    ],
    scan: Annotated[
        Path,
        typer.Option(
            help="The scan that was segmented, as the cohort has it (imagesTr/<case>_0000.nii.gz): "
            "a series with other voxels is refused."
        ),
    ],
    choose: Annotated[
        str | None,
        typer.Option(
            "--series",
            metavar="TEXT",
            help="Where the folder holds several: part of the description, the number or the UID.",
            show_default=False,
        ),
    ] = None,
    prediction: Annotated[
        Path | None,
        typer.Option(
            help="Output of 'classify predict --json': what it says of the mask's case goes into "
            "the report.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a DICOM SEG of a mask and a structured report (TID 1500) for its series.

    Both belong to the patient and the study of the series and carry their identifiers.
    """
    from neonet3d.cohort.folder import new_folder
    from neonet3d.cohort.volume import read_label_map, read_volume
    from neonet3d.engine.artefact import read_card
    from neonet3d.errors import InputError
    from neonet3d.report.dicom_report import write_structured_report
    from neonet3d.report.dicom_segmentation import Algorithm, write_segmentation
    from neonet3d.report.dicom_series import SourceSeries
    from neonet3d.segmentation.evaluate import require_same_classes

    card = read_card(segmenter, kind="Segmenter")
    schema, case = card.schema_, mask.name.removesuffix(".gz").removesuffix(".nii")
    require_same_classes(mask.parent, schema)
    said = None if prediction is None else _probability(prediction, case)
    if scan.name != f"{case}_0000.nii.gz":
        raise InputError(
            f"The mask is named after {case}, and {scan.name} is no scan of it. Give both of one "
            "case."
        )
    source = SourceSeries.open(series, choose)
    source.require_scan(read_volume(scan), name=scan.name)
    frames = source.in_slices(read_label_map(mask, n_classes=len(schema)), schema, name=mask.name)
    segments = write_segmentation(
        source, frames, schema, Algorithm.of("NeoSeg", card.weights_sha256)
    )
    report = write_structured_report(source, segments, said)
    with new_folder(out) as folder:
        segments.dataset.save_as(folder / "segmentation.dcm")
        report.save_as(folder / "report.dcm")
    volumes = {
        str(segments.dataset.get_segment_description(number).segment_label): round(ml, 3)
        for number, ml in segments.volumes_ml.items()
    }
    sure = None if said is None else said.sureness
    strange = sure is not None and sure.unfamiliar
    show(
        {
            "segmentation": str(out / "segmentation.dcm"),
            "report": str(out / "report.dcm"),
            "volumes_ml": volumes,
            "probability": None if said is None else said.value,
            "unfamiliar": None if sure is None else strange,
        },
        as_json=as_json,
        sentence=f"{out}: segmentation.dcm ({', '.join(volumes)}) and report.dcm, unverified. "
        + ("The case is UNLIKE the training cases; the report says so. " if strange else "")
        + "They carry the identifiers of the series. Research use only; not a medical device.",
    )


def _probability(path: Path, case: str) -> ReportedProbability:
    """What ``classify predict --json`` printed of one case.

    Raises:
        InputError: another file, or one that does not have the case.
    """
    from pydantic import ValidationError

    from neonet3d.errors import InputError
    from neonet3d.report.dicom_report import ReportedProbability, Sureness
    from neonet3d.report.dicom_segmentation import Algorithm
    from neonet3d.report.said import Said

    try:
        said = Said.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{path} is not what 'neonet3d classify predict --json' prints "
            f"({type(error).__name__}). Run it on the scan's crop and keep its output."
        ) from error
    if case not in said.probability:
        raise InputError(
            f"{path} says nothing of {case}, the case that the mask is named after. Predict the "
            "crop of the same scan, or give the mask of the case that was predicted."
        )
    sure = said.certainty.get(case)
    return ReportedProbability(
        said.outcome,
        said.probability[case],
        None
        if sure is None
        else Sureness(*sure.interval, may_be=tuple(sure.may_be), unfamiliar=sure.unfamiliar),
        Algorithm.of(said.model.kind, said.model.weights_sha256),
    )
