"""What a segmenter is trained on: the arms of the 3D-LLDM experiment, and one training."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file

from neonet3d.cohort.geometry import Grid
from neonet3d.config import (
    AugmentationConfig,
    AugmentationStudyConfig,
    LoopConfig,
    NetworkName,
    SegmenterPlan,
)
from neonet3d.engine.run import STATE, once
from neonet3d.metrics.overlap import dice
from neonet3d.metrics.surface import hd95_mm
from neonet3d.segmentation.patch_segmenter import LabelledPatches, PatchSegmenter
from neonet3d.types import Shape, Triple

COLUMNS = ("case", "patient", "class", "dice", "hd95_mm")


@dataclass(frozen=True)
class Arm:
    """A training set.

    Attributes:
        key: short name used in files.
        real: whether real cases are in it.
        classic: whether patches are rotated, bent and changed in contrast.
        ratio: synthetic cases for each real one, whether those are in it or not.
    """

    key: str
    title: str
    real: bool
    classic: bool
    ratio: float


def study_arms(config: AugmentationStudyConfig) -> list[Arm]:
    """Real cases first, which all others are compared with."""
    most = max(config.ratios)
    arms = [
        Arm("real", "real cases", real=True, classic=False, ratio=0.0),
        Arm("classic", "real, classic augmentation", real=True, classic=True, ratio=0.0),
        *(
            Arm(f"synthetic_{r:g}", f"real + {r:g}x synthetic", real=True, classic=False, ratio=r)
            for r in sorted(config.ratios)
        ),
    ]
    if config.combined:
        title = f"real + {most:g}x synthetic, classic augmentation"
        arms.append(Arm("both", title, real=True, classic=True, ratio=most))
    alone = f"{most:g}x synthetic alone"
    return [*arms, Arm("synthetic", alone, real=False, classic=False, ratio=most)]


class PatchFacts(BaseModel):
    """What ``patches.json`` says.

    Attributes:
        cases: name and patient of each held-out case.
        labels: value of each class but the background.
    """

    cases: tuple[tuple[str, str], ...]
    labels: dict[str, int]
    shape: Shape
    spacing_mm: Triple

    @property
    def grid(self) -> Grid:
        return Grid(self.shape, self.spacing_mm)


@dataclass(frozen=True)
class PatchSet:
    """Real, synthetic and held-out patches of one number of real cases, in two files."""

    folder: Path

    def write(
        self,
        real: LabelledPatches,
        synthetic: LabelledPatches,
        held_out: LabelledPatches,
        facts: PatchFacts,
    ) -> None:
        """Images in half precision: a step of it is a thousandth of the range."""
        tensors = {}
        for name, part in (("real", real), ("synthetic", synthetic), ("held_out", held_out)):
            tensors[f"{name}.images"] = part.images.half().contiguous()
            tensors[f"{name}.label_maps"] = part.label_maps.contiguous()
        save_file(tensors, self.folder / "patches.safetensors")
        (self.folder / "patches.json").write_text(facts.model_dump_json())

    def part(self, name: str) -> LabelledPatches:
        """``real``, ``synthetic`` or ``held_out``."""
        path = self.folder / "patches.safetensors"
        tensors = _tensors(path, path.stat().st_mtime_ns)
        return LabelledPatches(tensors[f"{name}.images"].float(), tensors[f"{name}.label_maps"])

    def training(self, arm: Arm) -> LabelledPatches:
        """What an arm trains on: a lower ratio takes the first synthetic cases of a higher one."""
        real, synthetic = self.part("real"), self.part("synthetic")
        n = round(arm.ratio * len(real))
        some = LabelledPatches(synthetic.images[:n], synthetic.label_maps[:n])
        if not arm.real:
            return some
        return real.join(some) if n else real

    def holds(self) -> dict[str, np.ndarray]:
        """For each class, which held-out cases hold it."""
        maps = self.part("held_out").label_maps.flatten(1)
        return {name: (maps == value).any(1).numpy() for name, value in self.facts().labels.items()}

    def facts(self) -> PatchFacts:
        return PatchFacts.model_validate_json((self.folder / "patches.json").read_bytes())


@lru_cache(maxsize=2)
def _tensors(path: Path, written_ns: int) -> dict[str, torch.Tensor]:
    return load_file(path)


@dataclass(frozen=True)
class Training:
    """One segmenter, one arm, one seed; ``folder/scores.csv`` is what comes of it."""

    folder: Path
    key: str
    patches: Path
    network: NetworkName
    arm: Arm
    seed: int
    plan: SegmenterPlan
    loop: LoopConfig
    augmentation: AugmentationConfig


def train_and_score(training: Training) -> None:
    """Train, segment the held-out patches, write their scores; nothing where they stand."""

    def build(folder: Path) -> None:
        patches = PatchSet(training.patches)
        facts = patches.facts()
        n_classes = len(facts.labels) + 1
        segmenter = PatchSegmenter(training.plan, facts.grid, n_classes, seed=training.seed)
        segmenter.train(
            patches.training(training.arm),
            training.loop,
            folder / STATE,
            seed=training.seed,
            description=f"{training.network}, {training.arm.title}",
            augmentation=training.augmentation if training.arm.classic else None,
        )
        held_out = patches.part("held_out")
        found = segmenter.segment(held_out.images)
        write_scores(folder / "scores.csv", found, held_out, facts)

    once(training.folder, training.key, build)


def write_scores(
    path: Path, found: torch.Tensor, held_out: LabelledPatches, facts: PatchFacts
) -> None:
    """Dice and HD95 of each class of each case; nan where neither mask holds it."""
    labels, spacing_mm = facts.labels, facts.spacing_mm
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (name, patient), prediction, reference in zip(
            facts.cases, found.numpy(), held_out.label_maps.numpy(), strict=True
        ):
            overlaps = dice(prediction, reference, labels)
            distances = hd95_mm(prediction, reference, labels, spacing_mm=spacing_mm)
            for label in labels:
                row = (f"{overlaps[label]:.6g}", f"{distances[label]:.6g}")
                writer.writerow([name, patient, label, *row])


@dataclass(frozen=True)
class Scores:
    """What one training scored on the held-out cases.

    Attributes:
        dice, hd95_mm: by class, one value for each case.
        patients: of each case.
    """

    dice: dict[str, np.ndarray]
    hd95_mm: dict[str, np.ndarray]
    patients: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Scores:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        classes = list(dict.fromkeys(row["class"] for row in rows))
        by_class = {name: [row for row in rows if row["class"] == name] for name in classes}

        def column(key: str) -> dict[str, np.ndarray]:
            return {k: np.array([float(row[key]) for row in of]) for k, of in by_class.items()}

        patients = tuple(row["patient"] for row in by_class[classes[0]])
        return cls(column("dice"), column("hd95_mm"), patients)


def study_names(config: AugmentationStudyConfig) -> list[tuple[NetworkName, Arm, int]]:
    """Every network with every arm and seed."""
    return [
        (network, arm, seed)
        for network in config.networks
        for arm in study_arms(config)
        for seed in range(config.seeds)
    ]
