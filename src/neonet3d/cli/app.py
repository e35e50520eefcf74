"""All commands and their groups."""

from __future__ import annotations

import typer

from neonet3d.cli import (
    augmentation,
    classify,
    cohort,
    crop,
    dicom,
    generate,
    plan,
    segment,
    serve,
    study,
)
from neonet3d.cli.options import ConfigFile, Overrides, Preset, Seed, resolve, show

app = typer.Typer(
    name="neonet3d",
    help="Label-guided 3D generation and diagnosis from liver MR. Research use only; not a medical "
    "device.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("demo")(study.demo)
app.add_typer(cohort.app, name="cohort")
app.add_typer(segment.app, name="segment")
app.command("crop")(crop.crop)
app.command("place-back")(crop.place_back)
app.add_typer(generate.app, name="generate")
app.add_typer(classify.app, name="classify")
study.app.command("plan")(plan.plan)
study.app.command("augmentation")(augmentation.augmentation)
app.add_typer(study.app, name="study")
app.command("dicom")(dicom.dicom)
app.command("report")(study.report)
app.command("serve")(serve.serve)


@app.command("info")
def info(
    preset: Preset = "cpu",
    config: ConfigFile = None,
    overrides: Overrides = None,
    seed: Seed = None,
) -> None:
    """Versions, device and the resolved configuration, as JSON."""
    import platform
    from importlib.metadata import version

    import torch

    from neonet3d.config import PRESETS
    from neonet3d.engine.device import device_summary

    result = {
        "neonet3d": version("neonet3d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device_summary(),
        "presets": list(PRESETS),
        "config": resolve(preset, config, overrides, seed).model_dump(mode="json"),
    }
    show(result, as_json=True, sentence="")
