"""The page that ``bench/generator.py`` writes from what it measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from segmentation import cell, commit

from neonet3d.config import Config, fingerprint
from neonet3d.engine.device import device_summary

Found = dict[str, Any]


def page(found: dict[str, Found], config: Config, rival_minutes: float) -> str:
    return "\n".join(lines(found, config, rival_minutes)) + "\n"


def lines(found: dict[str, Found], config: Config, rival_minutes: float) -> Iterator[str]:
    yield "# The generator beside MONAI's ControlNet LDM"
    yield ""
    yield f"Written by `bench/generator.py` on {datetime.now(UTC):%Y-%m-%d}, commit {commit()};"
    yield f"{device_summary()}, {platform.processor() or platform.machine()};"
    yield f"Python {platform.python_version()}, torch {version('torch')}, MONAI {version('monai')};"
    yield f"configuration {fingerprint(config)}. Its docstring defines every figure,"
    yield "`bench/monai_ldm.py` says how the rival is trained and what was mended."
    yield f"The rival's autoencoder has {rival_minutes:g} minutes, without its perceptual loss."
    if note := os.environ.get("NOTE"):
        yield note
    for name, of in found.items():
        yield from ["", f"## {name.capitalize()}", ""]
        yield from summary(of)
        yield from ["", *images(of), "", *judged(of), "", *training(of)]
        if "classifiers" in of:
            yield from ["", *classifiers(of)]


def summary(of: Found) -> Iterator[str]:
    least = "at least " if of["at_least"] else ""
    at_best = of["autoencoder_speedup_at_rival_best"]
    yield "| | |"
    yield "|---|---|"
    yield (
        f"| autoencoder, to {of['target_psnr']:.2f} dB held out | {least}"
        f"{of['autoencoder_speedup']:.1f} times as fast |"
    )
    yield (
        f"| the same, to the rival's best ({of['rival_best_psnr']:.2f} dB) | "
        + ("not reached |" if at_best is None else f"{at_best:.1f} times as fast |")
    )
    mode, few = of["few_mode"]
    for steps, key in ((of["standard_steps"], "sampling"), (few, "few_step")):
        for batch, ratios in of[f"{key}_speedups"].items():
            texts = [f"{ratio:.1f} ({name})" for name, ratio in ratios.items()]
            yield f"| a volume, {mode}, {steps} steps, {batch} | {', '.join(texts)} times as fast |"
    for name, stages in of["peak_fractions"].items():
        texts = [f"{share:.2f} ({stage})" for stage, share in stages.items()]
        peak = f"convolution peak, {name} ({of['peak_gflops'][name]:,.0f} GFLOP/s)"
        yield f"| share of the {peak} in a training step | {', '.join(texts)} |"


def images(of: Found) -> Iterator[str]:
    """Reals, reconstructions, the rival, and ours by steps."""
    classes = list(of["table"]["real"]["adherence"])
    yield "Held-out masks. KID and FID are means over planes; floors are real against real; Dice is"
    yield "that of a segmenter trained on the real training cases; C2ST is on region Haar features,"
    yield "and then on ImageNet features of slices, which nothing of ours is calibrated on."
    yield ""
    yield (
        "| images | "
        + " | ".join(f"ms a volume, {batch}" for batch in of["seconds"])
        + " | KID (floor) | FID (floor) | C2ST | C2ST, slices | lowest Dice ratio | Dice: "
        + " | ".join(classes)
        + " |"
    )
    yield "|---" * (6 + len(of["seconds"]) + len(classes)) + "|"
    for name, row in of["table"].items():
        key = "rival-float32" if name == "rival" else name
        seconds = [of["seconds"][batch].get(key) for batch in of["seconds"]]
        compared = "kid" in row
        cells = [
            *("-" if value is None else f"{1e3 * value:.0f}" for value in seconds),
            f"{row['kid']:.4f} ({row['kid_floor']:.4f})" if compared else "-",
            f"{row['fid']:.1f} ({row['fid_floor']:.1f})" if compared else "-",
            cell(row["c2st"]) if compared else "-",
            cell(row["c2st_slices"]) if compared else "-",
            f"{row['mask_adherence']:.3f}",
            *(cell(row["adherence"][one]) for one in classes),
        ]
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    theirs = [f"{1e3 * each['rival-bf16']:.0f} ({k})" for k, each in of["seconds"].items()]
    yield f"The rival in bf16: {', '.join(theirs)} ms a volume."


def judged(of: Found) -> Iterator[str]:
    """What ``generate evaluate`` says of the preset's steps, and masks that no patient had."""
    found, new = of["evaluation"], of["new_masks"]
    yield "| the preset's steps, by `generate evaluate` | synthetic | real against real |"
    yield "|---|---|---|"
    yield f"| MS-SSIM between cases | {cell(found['ms_ssim'])} | {cell(found['ms_ssim_of_real'])} |"
    if (manifold := found["manifold"]) is not None:
        for name in ("precision", "recall"):
            real = cell(manifold[f"{name}_of_real"])
            yield f"| {name} | {cell(manifold[name])} | {real} |"
    yield ""
    decibels = [one["value"] for one in found["spectrum"]["decibels"]]
    yield f"Power spectrum, synthetic over real: {min(decibels):.1f} to {max(decibels):.1f} dB over"
    yield f"{len(decibels)} bins up to the Nyquist frequency in plane."
    yield found["copying"]["sentence"]
    yield ""
    yield "| new masks: Dice of the segmenter | " + " | ".join(new["adherence"]) + " |"
    yield "|---" * (1 + len(new["adherence"])) + "|"
    yield "| | " + " | ".join(cell(one) for one in new["adherence"].values()) + " |"
    yield ""
    yield f"Lowest ratio to real held-out images: {of['new_mask_adherence']:.3f}."
    yield ""
    median, usual = new["novelty"]["median"], new["novelty"]["between_patients"]["median"]
    yield f"Dice of a new mask with the nearest training mask: median {median:.2f}; of training"
    yield f"masks of different patients {usual:.2f}."


def training(of: Found) -> Iterator[str]:
    yield "| autoencoder | s: held-out PSNR in dB | ms a step | peak MB of a step |"
    yield "|---|---|---|---|"
    costs = of["step_costs"]
    rows = {"ours": costs["ours"]["autoencoder"]} | costs["rival"]
    for name, cost in rows.items():
        curve = of["curves"][name]
        shown = curve if len(curve) < 8 else [*curve[1 :: max(1, len(curve) // 6)], curve[-1]]
        text = ", ".join(f"{seconds:.0f}: {psnr:.2f}" for seconds, psnr in shown)
        yield f"| {name} | {text} | {1e3 * cost['seconds']:.0f} | {cost['peak_mb']:.0f} |"
    rival = of["rival_diffusion"]
    yield ""
    yield f"Our whole training took {of['training']['seconds'] / 60:.1f} minutes (load"
    yield f"{of['training']['load']:.1f}); the rival's diffusion had {rival['seconds'] / 60:.1f}"
    yield f"({rival['unet_steps']:.0f} steps of the U-Net, {rival['controlnet_steps']:.0f} of the"
    yield f"ControlNet) on its {rival['autoencoder']} autoencoder."


def classifiers(of: Found) -> Iterator[str]:
    n = of["classifiers"]["real"]["n"]
    yield f"A region-pooled CNN but where said; tested on {n} phantom patients of other seeds."
    yield ""
    yield "| trained on | n | AUC, mean of three seeds | seeds |"
    yield "|---|---|---|---|"
    for name, row in of["classifiers"].items():
        seeds = ", ".join(f"{value:.3f}" for value in row["seeds"])
        yield f"| {name.replace('_', ' ')} | {row['n_train']} | {cell(row)} | {seeds} |"
