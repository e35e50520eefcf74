"""NeoSeg training: one loop for every network, Dice + cross-entropy, the best of its weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from monai.inferers import sliding_window_inference
from monai.losses import DiceCELoss
from torch import Tensor, nn

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.folds import Fold
from neonet3d.cohort.geometry import Grid
from neonet3d.cohort.intensity import IntensityNormaliser
from neonet3d.config import Config, SegmenterPlan
from neonet3d.engine.artefact import new_card, read_card, save_artefact
from neonet3d.engine.claim import claim_folder
from neonet3d.engine.device import fabric, memory_bytes
from neonet3d.engine.loop import remove_training_state, seeded, train_loop
from neonet3d.engine.progress import progress
from neonet3d.engine.stopping import EarlyStopping
from neonet3d.errors import InputError
from neonet3d.metrics.overlap import dice
from neonet3d.segmentation.localiser import FOLDER, train_localiser
from neonet3d.segmentation.networks import SegmentationNetwork
from neonet3d.segmentation.plan import Fingerprint, make_plan
from neonet3d.segmentation.scans import PatchSampler, Scan, prepare_scan
from neonet3d.segmentation.tiling import OVERLAP
from neonet3d.types import ImageArray


def train_segmenter(fold: Fold, config: Config, folder: Path) -> None:
    """Fit a segmenter on the training cases of one fold and write it to ``folder``.

    Raises:
        InputError: no class beside background, or a training case without a mask.
    """
    settings, cohort = config.segmenter, fold.training
    fingerprint, normaliser = read_fingerprint(cohort)
    plan = make_plan(fingerprint, settings)
    grid = Grid(plan.patch, plan.spacing_mm)
    localised = bool((np.array(fingerprint.extent_mm) > grid.extent_mm).any())
    card = new_card(
        "Segmenter",
        fold=fold,
        config=settings,
        seed=config.seed,
        normaliser=normaliser,
        grid=grid,
    ).model_copy(update={"parts": {"plan": plan.model_dump(mode="json"), "localiser": localised}})
    if claim_folder(folder, card):
        return
    belonging: dict[str, str] = {}
    if localised:
        train_localiser(
            fold,
            fingerprint.extent_mm,
            normaliser,
            folder,
            steps=settings.localiser_steps,
            seed=config.seed,
        )
        found = read_card(folder / FOLDER, kind="Localiser")
        belonging = {"localiser": found.weights_sha256}
    n_classes = len(cohort.schema)
    scans = {}
    with progress(f"{fold.name}: reading scans", len(cohort)) as advance:
        for case in cohort:
            scans[case.name] = prepare_scan(case, grid, normaliser, n_classes=n_classes)
            advance()
    showing = cohort.subset(case for case in cohort if scans[case.name].places)
    judged = inner_validation(showing, settings.validation_share, seed=config.seed)
    judging = {case.participant for case in cohort if case.name in judged}
    # Another scan of theirs trains no more than the one that judges.
    drawn = [scans[case.name] for case in cohort if case.participant not in judging]
    sampler = PatchSampler(drawn, grid, settings.augmentation)
    network = seeded(config.seed, lambda: SegmentationNetwork(plan, n_classes))
    stopping = EarlyStopping(
        score=lambda: mean_dice(network, [scans[name] for name in judged], plan, n_classes),
        every=max(1, settings.loop.steps // settings.evaluations),
        patience=settings.patience,
    )
    loss = train_loop(
        SegmentationObjective(network),
        lambda generator: sampler.draw(settings.loop.batch_size, generator),
        settings.loop,
        folder=folder,
        seed=config.seed,
        description=f"{fold.name}: segmenter",
        stopping=stopping if judged else None,
    )
    facts: dict[str, float] = {"training_loss": loss, "validation_cases": len(judged)}
    if judged:
        facts |= {"validation_dice": stopping.best, "best_step": stopping.best_step}
    save_artefact(folder, network, card.model_copy(update={"parents": belonging, "facts": facts}))
    remove_training_state(folder)


def read_fingerprint(cohort: Cohort) -> tuple[Fingerprint, IntensityNormaliser]:
    """What the sizes and the intensities of a training fold's scans are.

    Raises:
        InputError: no class beside background, or a case without a mask.
    """
    if len(cohort.schema) < 2:
        raise InputError(
            f"{cohort.root} has no class beside background, so there is nothing to segment. "
            "Name the classes in dataset.json."
        )
    for case in cohort:
        case.require_mask()
    grids = []

    def images() -> Iterator[tuple[str, ImageArray, None]]:
        with progress("reading the fingerprint", len(cohort)) as advance:
            for case in cohort:
                image = case.read_image()
                grids.append(Grid(image.shape, image.spacing_mm))
                yield case.name, image.data, None
                advance()

    normaliser = IntensityNormaliser.fit(images(), cohort.schema)
    return Fingerprint.of(grids, memory_bytes=memory_bytes()), normaliser


class SegmentationObjective(nn.Module):
    """Soft Dice over the foreground plus cross-entropy, both in float32.

    Heads of a network with deep supervision weigh 1, 1/2, 1/4, ... (nnU-Net), normalised.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.loss = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)

    def forward(self, image: Tensor, label_map: UInt8[Tensor, "b x y z"]) -> Tensor:
        logits, target = self.network(image), label_map[:, None].long()
        heads = logits.unbind(1) if logits.ndim == 6 else (logits,)
        weights = [0.5**depth for depth in range(len(heads))]
        losses = [
            w * self.loss(head.float(), target) for w, head in zip(weights, heads, strict=True)
        ]
        return torch.stack(losses).sum() / sum(weights)


def inner_validation(cohort: Cohort, share: float, *, seed: int) -> tuple[str, ...]:
    """Cases of a random share of the training patients; none where that is fewer than two.

    Args:
        cohort: training cases whose masks show a class: of the others a Dice says nothing.
        share: of the patients; one at least is left to train on.
    """
    patients = sorted({case.participant for case in cohort})
    n = min(round(share * len(patients)), len(patients) - 1)
    if n < 2:
        return ()
    chosen = set(np.random.default_rng(seed).permutation(patients)[:n])
    return tuple(case.name for case in cohort if case.participant in chosen)


@torch.inference_mode()
def mean_dice(network: nn.Module, scans: list[Scan], plan: SegmenterPlan, n_classes: int) -> float:
    """Mean over cases and classes on the network's grid, without what is rightly not there."""
    here = fabric()
    labels = {str(value): value for value in range(1, n_classes)}
    scores: list[float] = []
    for scan in scans:
        with here.autocast():
            logits = sliding_window_inference(
                here.to_device(scan.image.float())[None, None],
                plan.patch,
                1,
                network,
                overlap=OVERLAP,
                mode="gaussian",
                device=torch.device("cpu"),  # where the logits of the whole scan are put together
            )
        found = logits[0].argmax(0).to(torch.uint8).cpu().numpy()
        scores.extend(dice(found, scan.label_map.numpy(), labels).values())
    return float(np.nanmean(scores))
