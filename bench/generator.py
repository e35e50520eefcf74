"""NeoGen beside MONAI's ControlNet LDM, on the hippocampus and on phantom ROIs: page and JSON.

python bench/generator.py WORK_FOLDER [docs/results/generator.md] [--json FILE]

What is expensive is kept in WORK_FOLDER; a second call goes on where the first stopped.
Environment: NEONET3D_DATA is the folder of the public data; NOTE a sentence for the head of the
page; RIVAL_MINUTES (20) the limit of the rival's autoencoder; CASES the first so many cases of each
cohort and SETTINGS further overrides, to try the paths out; DATASETS which of the two.

Keys of the JSON, for each data set under ``datasets`` and, at the top, the worst of both:
``autoencoder_speedup``: seconds of MONAI's AutoencoderKL (float32 or bf16, the sooner) to the
held-out PSNR that ours has after its preset training, over ours; where ``at_least`` is set it
never got there and the seconds are its limit. Ours count reading and every fit around the steps;
the rival's only its steps. ``autoencoder_speedup_at_rival_best``: the same at the rival's best
PSNR. ``sampling_speedup``: DDIM-50 over the preset's steps, one volume at a time, the rival in
float32 as its tutorial runs on a CPU; ``sampling_speedups`` has it in bf16 and in batches too.
``few_step_speedup(s)``: the same over ``few_mode``.
``peak_fraction``: of the flow U-Net's training step (``autoencoder_peak_fraction`` too), by default
and, under ``peak_fractions``, with AVX-512 alone where the processor has matrix tiles.
``kid``: mean over planes, preset's steps (``rival_kid``, ``kid_floor``). ``mask_adherence``: Dice
on synthetic over Dice on real held-out images, the lowest over classes (``new_mask_adherence``: for
masks that no patient had). ``c2st``: AUC, held-out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from generator_data import cohorts, write_phantoms
from generator_measures import (
    Result,
    adherence,
    adherence_ratio,
    autoencoder_race,
    c2st,
    classifiers,
    crossed_rows,
    fidelity,
    own_rows,
    speedups,
    write_pairs,
)
from generator_page import page
from monai_ldm import LatentDiffusion, build_autoencoder, train_autoencoder, train_diffusion
from phantom_audit import N_TEST, TEST_SEED
from safetensors.torch import load_file, save_file
from segmentation import command
from torch import Tensor

from neonet3d.cli.options import training_fold
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import Patches, load_patches
from neonet3d.config import SamplerName, load_config
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.latent_flow import load_autoencoder
from neonet3d.generation.latents import reconstructions
from neonet3d.generation.train import train_autoencoder as train_ours
from neonet3d.segmentation.predict import Segmenter

BENCH = Path(__file__).resolve().parent
PRESET, BATCH, ROUNDS = "cpu", 16, 5
CASES = int(os.environ["CASES"]) if "CASES" in os.environ else None
SETTINGS = os.environ.get("SETTINGS", "").split()
RIVAL_MINUTES = float(os.environ.get("RIVAL_MINUTES", "20"))
RIVAL_EVERY = 60.0  # seconds between two measurements of its PSNR
SHARES = (0.0625, 0.125, 0.25, 0.5, 1.0)  # of our autoencoder's steps: a training for each
CONFIG = load_config(PRESET, overrides=SETTINGS)
STANDARD = CONFIG.sampler.steps
STEPS: dict[SamplerName, list[int]] = {
    "euler": [1, 2, 4, 10, 20, 30],
    "exponential": sorted({1, 2, 4, 10, 20, 30, STANDARD}),
}
FEW: tuple[SamplerName, int] = ("exponential", 1)
DATASETS = os.environ.get("DATASETS", "phantom hippocampus").split()
N_SYNTHETIC, N_NEW = 512, 64


def draw(
    generator: LatentGenerator, maps: Tensor, labels: Tensor, steps: int, mode: SamplerName
) -> Tensor:
    """Images (n, x, y, z) in [-1, 1]."""
    return generator.sample(maps, labels, steps=steps, seed=0, method=mode)


def kept(work: Path, name: str, make: Callable[[], Result]) -> Result:
    """A result as JSON in the work folder; made once."""
    path = work / f"{name}.json"
    if not path.is_file():
        print("#", path, file=sys.stderr)
        path.write_text(json.dumps(make(), indent=2) + "\n")
    return json.loads(path.read_text())


def kept_images(work: Path, name: str, make: Callable[[], Tensor]) -> Tensor:
    path = work / f"{name}.safetensors"
    if not path.is_file():
        print("#", path, file=sys.stderr)
        save_file({"images": make().contiguous()}, path)
    return load_file(path)["images"]


def our_curve(work: Path, cohort: Path, splits: Path) -> Result:
    """Seconds and held-out PSNR of trainings with a share of the preset's steps, each by itself."""
    fold, curve = training_fold(cohort, "0", CONFIG.seed, splits), []
    for share in SHARES:
        loop = CONFIG.autoencoder.loop
        loop = loop.model_copy(update={"steps": max(1, round(loop.steps * share))})
        section = CONFIG.autoencoder.model_copy(update={"loop": loop})
        folder = work / f"autoencoder-{loop.steps}"

        def train(section: object = section, folder: Path = folder) -> Result:
            started = time.perf_counter()
            train_ours(fold, CONFIG.model_copy(update={"autoencoder": section}), folder)
            seconds = time.perf_counter() - started
            model, card = load_autoencoder(folder)
            real = load_patches(fold.held_out, *card.reading)
            error = (reconstructions(model, real.images).cpu() - real.images).square().mean()
            return {"seconds": seconds, "psnr": float(10 * torch.log10(4 / error))}

        found = kept(work, f"autoencoder-{loop.steps}", train)
        curve.append((found["seconds"], found["psnr"]))
    return {"curve": curve}


def speed(generator: LatentGenerator, rival: LatentDiffusion, real: Patches) -> Result:
    """Median seconds a volume, alone and in batches; the ways take turns, the first warms up."""
    return {f"batch {n}": speed_of(generator, rival, real, n) for n in (1, BATCH)}


def speed_of(
    generator: LatentGenerator, rival: LatentDiffusion, real: Patches, batch: int
) -> Result:
    maps, labels = real.required_label_maps()[:batch], real.outcomes[:batch]
    ways: dict[str, Callable[[], Tensor]] = {
        f"{mode}-{n}": partial(draw, generator, maps, labels, n, mode)
        for mode, steps in STEPS.items()
        for n in steps
    }
    for name, bf16 in (("float32", False), ("bf16", True)):
        ways[f"rival-{name}"] = partial(
            rival.sample, maps, labels.clamp(min=0), seed=0, batch=batch, bf16=bf16
        )
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + ROUNDS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            taken[name].append((time.perf_counter() - started) / len(maps))
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def step_costs(cohort: Path, splits: Path, what: str) -> Result:
    """``flops-avx512`` is ``flops`` where oneDNN keeps off matrix tiles (AMX)."""
    what, _, isa = what.partition("-")
    script = [sys.executable, str(BENCH / "generator_speed.py"), str(cohort)]
    words = [*script, "--splits", str(splits), "--fold", "0", what]
    environment = os.environ | ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"} if isa else {})
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measure(work: Path, cohort: Path, splits: Path) -> Result:
    """Everything of one data set."""
    work.mkdir(exist_ok=True)
    keep, fold_words = partial(kept, work), ("--splits", splits, "--fold", "0", "--preset", PRESET)
    settings = [word for one in SETTINGS for word in ("--set", one)]
    train = ("generate", "train", cohort, work / "model", *fold_words, *settings)
    trained = command(work / "train.json", *train)
    segmenter_words = ("segment", "train", cohort, work / "segmenter", *fold_words, *settings)
    command(work / "segmenter.json", *segmenter_words)
    generator, segmenter = LatentGenerator.load(work / "model"), Segmenter.load(work / "segmenter")
    fold, card = training_fold(cohort, "0", CONFIG.seed, splits), generator.card
    train_set, real = (load_patches(part, *card.reading) for part in (fold.training, fold.held_out))
    ours: list[list[float]] = our_curve(work, cohort, splits)["curve"]

    model = partial(LatentDiffusion.build, n_classes=len(card.classes), labelled=bool(card.outcome))
    curves: dict[str, list[list[float]]] = {}
    for name, bf16 in (("float32", False), ("bf16", True)):

        def race(name: str = name, bf16: bool = bf16) -> Result:
            autoencoder, curve = train_autoencoder(
                train_set.images,
                real.images,
                target_db=ours[-1][1],
                minutes=RIVAL_MINUTES,
                bf16=bf16,
                every_seconds=RIVAL_EVERY,
            )
            model(autoencoder).save(work / f"rival-{name}.safetensors")
            return {"curve": curve}

        curves[name] = keep(f"rival-{name}", race)["curve"]
    best = max(curves, key=lambda name: curves[name][-1][1])

    def diffuse() -> Result:
        made = model(build_autoencoder()).restore(work / f"rival-{best}.safetensors")
        made = model(made.autoencoder)
        seconds = max(1.0, float(trained["seconds"]) - ours[-1][0])
        maps, labels = train_set.required_label_maps(), train_set.outcomes.clamp(min=0)
        bf16 = best == "bf16"
        record = train_diffusion(made, train_set.images, maps, labels, seconds=seconds, bf16=bf16)
        made.save(work / "rival.safetensors")
        return dict(record) | {"seconds": seconds, "autoencoder": best}

    diffused = keep("rival-diffusion", diffuse)
    rival = model(build_autoencoder()).restore(work / "rival.safetensors")
    maps, labels = real.required_label_maps(), real.outcomes
    sampled: dict[str, Callable[[], Tensor]] = {
        f"{mode}-{n}": partial(draw, generator, maps, labels, n, mode)
        for mode, steps in STEPS.items()
        for n in steps
    }
    sampled["rival"] = partial(
        rival.sample, maps, labels.clamp(min=0), seed=0, batch=BATCH, bf16=False
    )
    sampled["reconstructed"] = lambda: generator.reconstruct(real.images, maps, seed=0)
    sampled["real"] = lambda: real.images
    table: dict[str, Result] = {}
    for name, make in sampled.items():
        images = kept_images(work, f"images-{name}", make)
        pairs = write_pairs(generator, fold.held_out, images, maps, work / f"pairs-{name}")
        table[name] = keep(f"adherence-{name}", partial(adherence, segmenter, pairs))
        table[name] = {"adherence": table[name]}
        if name != "real":

            def against_real(images: Tensor = images) -> Result:
                return {"c2st": c2st(real, images, len(card.classes))} | fidelity(real, images)

            table[name] |= keep(f"fidelity-{name}", against_real)
    for row in table.values():
        row["mask_adherence"] = adherence_ratio(row["adherence"], table["real"]["adherence"])
    standard = f"{CONFIG.sampler.method}-{STANDARD}"
    full = command(
        work / "evaluate.json",
        *("generate", "evaluate", cohort, work / f"pairs-{standard}", *fold_words[:4]),
        *("--model", work / "model", "--segmenter", work / "segmenter"),
    )
    new_words = ("generate", "sample", work / "model", work / "new", "--new-masks", "--n", N_NEW)
    new = command(work / "new.json", *new_words, "--training", cohort, *fold_words[-2:], *settings)
    new["adherence"] = keep(
        "adherence-new", lambda: adherence(segmenter, Cohort.open(work / "new"))
    )
    seconds = keep("speed", lambda: speed(generator, rival, real))
    costs = {
        what: keep(f"steps-{what}", partial(step_costs, cohort, splits, what))
        for what in ("ours", "rival", "flops", "flops-avx512")
    }
    peaks = {
        name: {stage: cost["peak_fraction"] for stage, cost in costs[what]["stages"].items()}
        for name, what in (("as it is", "flops"), ("AVX-512 alone", "flops-avx512"))
    }
    found: Result = autoencoder_race(ours, curves) | {
        "sampling_speedup": speedups(seconds, standard)["batch 1"]["float32"],
        "few_step_speedup": speedups(seconds, f"{FEW[0]}-{FEW[1]}")["batch 1"]["float32"],
        "sampling_speedups": speedups(seconds, standard),
        "few_step_speedups": speedups(seconds, f"{FEW[0]}-{FEW[1]}"),
        "few_mode": list(FEW),
        "standard_steps": STANDARD,
        "peak_fraction": peaks["as it is"]["flow U-Net"],
        "autoencoder_peak_fraction": peaks["as it is"]["autoencoder"],
        "peak_fractions": peaks,
        "peak_gflops": {"as it is": costs["flops"]["peak_gflops"]}
        | {"AVX-512 alone": costs["flops-avx512"]["peak_gflops"]},
        "kid": table[standard]["kid"],
        "kid_floor": table[standard]["kid_floor"],
        "rival_kid": table["rival"]["kid"],
        "mask_adherence": table[standard]["mask_adherence"],
        "c2st": table[standard]["c2st"]["value"],
        "evaluation": full,
        "new_masks": new,
        "new_mask_adherence": adherence_ratio(new["adherence"], table["real"]["adherence"]),
        "table": table,
        "seconds": seconds,
        "step_costs": costs,
        "curves": {"ours": ours} | curves,
        "rival_diffusion": diffused,
        "training": trained,
    }
    if card.outcome:
        found["classifiers"] = learned(work, generator, train_set, keep)
    return found


def learned(
    work: Path, generator: LatentGenerator, train: Patches, keep: Callable[..., Result]
) -> dict[str, Result]:
    folder = write_phantoms(CONFIG, work / "test", TEST_SEED, CASES * 4 if CASES else N_TEST)
    test = load_patches(Cohort.open(folder), *generator.card.reading)
    n = CASES * 2 if CASES else N_SYNTHETIC

    def synthetic(name: str, rows: Tensor, labels: Tensor) -> Patches:
        maps = train.required_label_maps()[rows]
        make = partial(draw, generator, maps, labels, STANDARD, CONFIG.sampler.method)
        images = kept_images(work, f"images-{name}", make)
        return replace(
            train,
            images=images,
            label_maps=maps,
            outcomes=labels,
            synthetic=torch.ones(len(rows), dtype=torch.bool),
            log_scale=torch.zeros(len(rows), 3),  # as ``draw`` says nothing of it
        )

    crossed = synthetic("1to1", *crossed_rows(len(train), n))
    own = synthetic("own-masks", *own_rows(train.outcomes, n))
    return classifiers(generator, train, crossed, own, test, keep)


WORST = {
    **dict.fromkeys(
        ("autoencoder_speedup", "sampling_speedup", "few_step_speedup", "peak_fraction"), min
    ),
    "mask_adherence": min,
    **dict.fromkeys(("kid", "c2st"), max),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("page", type=Path, nargs="?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    found = {
        name: measure(options.work / f"of-{name}", *paths)
        for name, paths in cohorts(CONFIG, options.work, CASES).items()
        if name in DATASETS
    }
    result: Result = {key: worst(of[key] for of in found.values()) for key, worst in WORST.items()}
    result |= {"datasets": found}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    text = page(found, CONFIG, RIVAL_MINUTES)
    if options.page:
        options.page.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
