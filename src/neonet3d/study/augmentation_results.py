"""What the 3D-LLDM experiment found: ``results.json`` of its run folder."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from neonet3d.engine.run import is_run
from neonet3d.errors import InputError
from neonet3d.metrics.fidelity import FidelityScore
from neonet3d.metrics.interval import Interval
from neonet3d.study.results import Record


class GeneratorRow(Record):
    """One generator on the held-out masks.

    Attributes:
        seconds: of training, the same for all but for what a last step takes.
        steps: of each part of it.
        sampling_seconds: a volume.
        fidelity: KID and FID per plane, with their floors.
        two_sample, two_sample_slices: AUC with which region features, and features of slices, tell
            its images from held-out real ones.
        ms_ssim: between its images; lower is more diverse.
        adherence: Dice of a segmenter of real cases on its images, per class.
    """

    key: str
    seconds: float
    steps: dict[str, int]
    sampling_seconds: float
    fidelity: tuple[FidelityScore, ...]
    two_sample: Interval
    two_sample_slices: Interval
    ms_ssim: Interval
    adherence: dict[str, Interval]

    @property
    def kid(self) -> float:
        """Mean over planes."""
        return sum(score.kid for score in self.fidelity) / len(self.fidelity)

    @property
    def fid(self) -> float:
        """Mean over planes."""
        return sum(score.fid for score in self.fidelity) / len(self.fidelity)


class AugmentationCell(Record):
    """One segmenter in one arm with so many real cases, one class; seeds averaged in each case.

    Attributes:
        dice: mean over the cases that hold the class, as everything but ``invented``.
        hd95_mm: median; infinite where a class is missed in half of them.
        gain: Dice above that of the same segmenter on real cases alone, paired by case.
        n_without: cases that do not hold the class.
        invented: share of them, mean over seeds, in which it is found; None where there are none.
    """

    network: str
    arm: str
    real_cases: int
    label: str
    dice: Interval
    hd95_mm: Interval
    gain: Interval
    n_without: int
    invented: float | None


class Worth(Record):
    """How many real cases alone reach the Dice of an arm, mean over segmenters and classes.

    Attributes:
        dice, real_dice: of the arm, and of real cases alone at the same number.
        equal_to: real cases, read off the curve of real cases alone between its numbers (linear in
            the logarithm); None below its first or beyond its last point.
    """

    arm: str
    real_cases: int
    dice: float
    real_dice: float
    equal_to: float | None


class AugmentationResults(Record):
    """All figures of an augmentation study.

    Attributes:
        failed: why a rival is not among the generators.
    """

    title: str
    classes: tuple[str, ...]
    n_pool: int
    n_held_out: int
    seeds: int
    steps: int
    arms: dict[str, str]
    adherence_of_real: dict[str, Interval]
    ms_ssim_of_real: Interval
    membership: Interval | None
    generators: tuple[GeneratorRow, ...]
    failed: dict[str, str]
    cells: tuple[AugmentationCell, ...]
    worth: tuple[Worth, ...]
    seconds: dict[str, float]

    @classmethod
    def read(cls, run: Path) -> AugmentationResults:
        """Of a finished run.

        Raises:
            InputError: there are none, or they are of another version.
        """
        path = run / "results.json"
        if not path.is_file():
            raise InputError(f"{run} has no results.json: the study has not come to its end.")
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(
                f"{path} is not of this version of neonet3d ({error.error_count()} entries do not "
                "fit). Start the study once more: what is trained is kept."
            ) from error


def is_augmentation_study(run: Path) -> bool:
    """Whether the run's command was one; its manifest says so."""
    if not is_run(run):
        return False
    command = json.loads((run / "manifest.json").read_text())["command"]
    return str(command).startswith("neonet3d study augmentation")
