"""Balancing a training fold with synthetic cases, behind a quality gate.

Three ways. ``rare_class`` fills the rarer class to 1:1, as the NeoNet abstract words it; it makes
*being synthetic* a sign of the class and cost 6 AUC points in a prototype.
``both_classes`` also ends at 1:1, but gives synthetic cases to both classes, and the classifier
draws the same share of them from each. ``pretrain`` gives as many synthetic cases to each class as
the larger has real ones, and none of the real ones: a 1:1 set to train on before the real cases.

A synthetic case starts from the deformed mask of a training case. ``rare_class`` takes the masks of
that class. The other two take those of either (``masks``): where each mask comes with one outcome
only, a classifier learns the masks by heart (``docs/results/generator.md`` has both ways). What a
mask does say of the outcome, the real cases teach. Only where it says nearly all, as the shape of
a vessel does of an aneurysm, must the outcome keep its own (``masks="same"``).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neonet3d.cohort.cohort import Case, Cohort, CohortWriter
from neonet3d.cohort.volume import write_atomically
from neonet3d.config import BalanceConfig, SamplerConfig
from neonet3d.errors import InputError, RunError
from neonet3d.generation.gate import QualityGate
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.masks import deform_mask
from neonet3d.generation.sample import SyntheticCase, as_spacing, as_volume, masks_on_grid
from neonet3d.generation.sources import SOURCE_COLUMN, SOURCE_DIGITS
from neonet3d.segmentation.predict import Segmenter
from neonet3d.types import Advance, no_advance


@dataclass(frozen=True)
class Wanted:
    """How many synthetic cases each class gets."""

    negative: int
    positive: int


def plan_balance(negative: int, positive: int, config: BalanceConfig) -> Wanted:
    """How many synthetic cases bring ``negative`` and ``positive`` real ones to 1:1."""
    larger = max(negative, positive)
    match config.mode:
        case "rare_class":
            return Wanted(larger - negative, larger - positive)
        case "both_classes":
            target = math.ceil(larger / (1 - config.synthetic_share))
            return Wanted(target - negative, target - positive)
        case "pretrain":
            return Wanted(larger, larger)


def balance_cohort(
    training: Cohort,
    generator: LatentGenerator,
    segmenter: Segmenter | None,
    out: Path,
    config: BalanceConfig,
    sampler: SamplerConfig,
    *,
    seed: int,
    advance: Advance = no_advance,
) -> Cohort:
    """Write the training cases and synthetic ones, 1:1, as one cohort.

    In the mode ``pretrain`` the synthetic ones alone.

    A synthetic case starts from the deformed mask of a training case (which: see the module). It is
    drawn again, up to ``config.attempts`` times, while the gate (``gate.py``) refuses it: NeoSeg
    must find its tumour about as well as those of real patches, and its nearest training image must
    not be far nearer than the next ones, as that of a copy is. What was refused is counted in
    ``balance.json``.

    Args:
        training: real patches of the fold that trained generator and segmenter.
        segmenter: None where the classes hold no tumour.

    Raises:
        InputError: a generator without outcomes, a case that did not train it, a class without a
            single real case, or tumours and no segmenter.
        RunError: the gate refuses a case ``config.attempts`` times.
    """
    if generator.card.outcome is None:
        raise InputError(
            "The generator was trained without outcomes, so it cannot balance classes."
        )
    strangers = len(training) - generator.card.count_training_cases(training)
    if strangers:
        raise InputError(
            f"{strangers} of the {len(training)} cases to balance did not train this generator. "
            "Give the fold that it was trained on (--fold or --splits)."
        )
    outcomes = training.outcomes
    negative, positive = int((outcomes == 0).sum()), int((outcomes == 1).sum())
    wanted = plan_balance(negative, positive, config)
    writer = CohortWriter(
        out,
        training.schema,
        outcome_name=training.outcome_name,
        channel=training.channel,
        durable=False,
    )
    if config.mode == "pretrain":
        negative = positive = 0
    else:
        add_real_cases(writer, training)
    gate = QualityGate.of(training, generator, segmenter, config)
    rng = np.random.default_rng(seed)
    drawn = kept = 0
    for outcome, count in ((0, wanted.negative), (1, wanted.positive)):
        of_class = [case for case in training if case.outcome == outcome]
        if count and not of_class:
            raise InputError(
                f"{training.root} has no case with {training.outcome_name} = {outcome}, so there "
                "is nothing to draw it after. Balance a fold that holds both classes."
            )
        own = config.mode == "rare_class" or config.masks == "same"
        sources = of_class if own else training.cases
        pending = list(range(count))
        for attempt in range(config.attempts):
            if not pending:
                break
            chosen = [sources[int(i)] for i in rng.integers(len(sources), size=len(pending))]
            label_maps, scales = _deformed(generator, training, chosen, rng)
            draw_seed = int(rng.integers(2**31))
            images = generator.sample(
                label_maps,
                torch.full((len(pending),), outcome),
                **sampler.model_dump(),
                seed=draw_seed,
                log_scale=scales,
            )
            drawn += len(pending)
            last = attempt == config.attempts - 1
            refused = []
            for i, place in enumerate(pending):
                made = SyntheticCase(
                    name=f"synthetic_{outcome}_{place:04d}",
                    image=as_volume(generator, images[i].numpy(), scales[i]),
                    label_map=as_volume(generator, label_maps[i].numpy(), scales[i]),
                    outcome=outcome,
                    source=chosen[i].digest(),
                    seed=draw_seed,
                )
                if not gate.accepts(images[i], made.image, made.label_map):
                    refused.append(place)
                    continue
                kept += 1
                writer.add(
                    made.name,
                    made.image,
                    made.label_map,
                    outcome=outcome,
                    extra=made.columns(generator),
                )
                advance()
            if last and refused:
                raise RunError(
                    f"{len(refused)} synthetic cases were refused {config.attempts} times: the "
                    "tumour is not where the mask has it, or they copy a training patient. Train "
                    "the generator longer, or lower balance.adherence_quantile."
                )
            pending = refused
    record = {
        "real": {"negative": negative, "positive": positive},
        "synthetic": {"negative": wanted.negative, "positive": wanted.positive},
        "drawn": drawn,
        "rejected": drawn - kept,
    }
    write_atomically(out / "balance.json", (json.dumps(record, indent=2) + "\n").encode())
    return writer.finish()


def add_real_cases(writer: CohortWriter, training: Cohort) -> None:
    """What synthetic or augmented cases are added to."""
    for case in training:
        image, mask = case.read_with_mask()
        writer.add(
            case.name,
            image,
            mask,
            outcome=case.outcome,
            participant=case.participant,
            extra={"synthetic": "0", SOURCE_COLUMN: case.digest()[:SOURCE_DIGITS]},
        )


def _deformed(
    generator: LatentGenerator, training: Cohort, chosen: list[Case], rng: np.random.Generator
) -> tuple[UInt8[Tensor, "n x y z"], Float[Tensor, "n 3"]]:
    maps, scales = [], []
    for case in chosen:
        label_map, scale = masks_on_grid(generator, training.subset([case]))
        spacing_mm = as_spacing(generator.card.grid, scale[0])
        try:
            maps.append(deform_mask(label_map[0].numpy(), training.schema, spacing_mm, rng))
        except RunError as error:
            raise RunError(f"{case.name}: {error}") from error
        scales.append(scale)
    return torch.from_numpy(np.stack(maps)), torch.cat(scales)
