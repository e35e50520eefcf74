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
        Path, typer.Option(help="NIfTI label map of the scan, as 'segment predict' wrote it.")
    ],
    segmenter: Annotated[
        Path, typer.Option(help="The segmenter that drew it: names of the classes, and version.")
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
            help="JSON of 'classify predict --json': its probability goes into the report.",
            show_default=False,
        ),
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(help="The scan's case in --prediction, where it has several."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a DICOM SEG of a mask and a structured report (TID 1500) for its series.

    Both belong to the patient and the study of the series and carry their identifiers.
    """
    from neonet3d.cohort.folder import new_folder
    from neonet3d.cohort.volume import read_label_map
    from neonet3d.engine.artefact import read_card
    from neonet3d.errors import InputError
    from neonet3d.report.dicom_report import write_structured_report
    from neonet3d.report.dicom_segmentation import Algorithm, write_segmentation
    from neonet3d.report.dicom_series import SourceSeries

    if case is not None and prediction is None:
        raise InputError("--case names a case of --prediction. Give both or neither.")
    card = read_card(segmenter, kind="Segmenter")
    said = None if prediction is None else _probability(prediction, case)
    source = SourceSeries.open(series, choose)
    schema = card.schema_
    found = read_label_map(mask, n_classes=len(schema))
    frames = source.in_slices(found, n_classes=len(schema), name=mask.name)
    segmentation = write_segmentation(
        source, frames, schema, Algorithm.of("NeoSeg", card.weights_sha256)
    )
    report = write_structured_report(source, segmentation, said)
    with new_folder(out) as folder:
        segmentation.save_as(folder / "segmentation.dcm")
        report.save_as(folder / "report.dcm")
    segments = [
        str(segmentation.get_segment_description(number).segment_label)
        for number in segmentation.segment_numbers
    ]
    show(
        {
            "segmentation": str(out / "segmentation.dcm"),
            "report": str(out / "report.dcm"),
            "segments": segments,
        },
        as_json=as_json,
        sentence=f"{out}: segmentation.dcm ({', '.join(segments)}) and report.dcm, unverified. "
        "They carry the identifiers of the series. Research use only; not a medical device.",
    )


def _probability(path: Path, case: str | None) -> ReportedProbability:
    """Of one case of what ``classify predict --json`` printed.

    Raises:
        InputError: another file, an unknown case, or several and none named.
    """
    import json

    from neonet3d.errors import InputError
    from neonet3d.report.dicom_report import ReportedProbability
    from neonet3d.report.dicom_segmentation import Algorithm

    try:
        said = json.loads(path.read_text())
        probability, model = said["probability"], said["model"]
        algorithm = Algorithm.of(model["kind"], model["weights_sha256"])
        outcome, certainty = said["outcome"], said["certainty"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not what 'neonet3d classify predict --json' prints ({error}). Run it on "
            "the scan's crop and keep its output."
        ) from error
    if case is None and len(probability) == 1:
        case = next(iter(probability))
    if case not in probability:
        raise InputError(
            f"{path} has {len(probability)} cases and "
            + ("none is chosen" if case is None else f"{case} is none of them")
            + f". Say --case with one of them, such as {next(iter(probability), 'none')}."
        )
    low, high = certainty.get(case, {}).get("interval", (None, None))
    return ReportedProbability(outcome, probability[case], low, high, algorithm)
