"""What ``generate train --dry-run`` prints: minutes and memory of each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neonet3d.cli.options import show, show_table

if TYPE_CHECKING:
    from neonet3d.cohort.folds import Fold
    from neonet3d.config import Config


def show_forecast(fold: Fold, settings: Config, *, as_json: bool) -> None:
    from dataclasses import asdict

    from neonet3d.engine.device import device_summary
    from neonet3d.generation.forecast import forecast_generator

    found = forecast_generator(fold, settings)
    if not as_json:
        show_table(
            ("stage", "steps", "s per step", "minutes", "peak MB"),
            [
                (
                    stage.name,
                    stage.steps,
                    f"{stage.seconds_per_step:.3f}",
                    f"{stage.seconds / 60:.1f}",
                    f"{stage.peak_bytes / 2**20:.0f}",
                )
                for stage in found.stages
            ],
        )
    show(
        asdict(found)
        | {"seconds": found.seconds, "peak_bytes": found.peak_bytes, "device": device_summary()},
        as_json=as_json,
        sentence=f"About {found.seconds / 60:.0f} minutes and {found.peak_bytes / 2**20:.0f} MB "
        f"for {found.cases} cases of {found.shape} voxels ({device_summary()}): patches "
        f"{found.patch_bytes / 2**20:.0f} MB, latents {found.latent_bytes / 2**20:.0f} MB, the "
        "rest the largest stage. Reading, encoding, and what is fitted in closed form, on draws, "
        "come on top.",
    )
