"""What a study found: the one file that the report is drawn from (``results.json``)."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from neonet3d.cohort.notebook import table_html
from neonet3d.errors import InputError
from neonet3d.metrics.calibration import CalibrationError, ReliabilityBin
from neonet3d.metrics.fidelity import FidelityScore
from neonet3d.metrics.interval import Interval


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Operating(Record):
    """A rule for a threshold, judged on cases that it was not chosen on.

    Attributes:
        rule: such as ``Youden``.
        thresholds: of each fold, chosen on the others.
        sensitivity, specificity, ppv, npv: over all cases; None of no case.
    """

    rule: str
    thresholds: tuple[float, ...]
    sensitivity: Interval | None
    specificity: Interval | None
    ppv: Interval | None
    npv: Interval | None


class Decisions(Record):
    """Net benefit at each threshold probability, with its interval point by point."""

    threshold: tuple[float, ...]
    model: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    treat_all: tuple[float, ...]


class SubgroupRow(Record):
    """AUC within one group of a division, such as a third by tumour volume; None of few cases."""

    division: str
    name: str
    n: int
    n_positive: int
    auc: Interval | None


class Judgement(Record):
    """How an arm does beyond its AUC (``study/judgement.py``).

    Attributes:
        slope, intercept: of the calibration line; None where none can be fitted: a threshold
            divides the classes without a fault, or the same is said of every case.
        operating: none where the other folds of some fold hold one class alone.
    """

    brier: Interval
    slope: Interval | None
    intercept: Interval | None
    calibration_error: CalibrationError
    reliability: tuple[ReliabilityBin, ...]
    operating: tuple[Operating, ...]
    decisions: Decisions
    subgroups: tuple[SubgroupRow, ...]


class Arm(Record):
    """One classifier on one training set, over all folds.

    Attributes:
        key: short name used in files, such as ``patten-both_classes``.
        title: for people.
        auc: pooled over the held-out cases of all folds, with its DeLong interval.
        fold_aucs: of each fold alone; their mean and deviation stand beside the pooled value.
        probabilities: held-out probability of each case, in the order of ``StudyResults.cases``.
        judgement: calibration, operating points, decisions, subgroups.
        leaky: encoder and generator saw the held-out cases, so that nothing here is an estimate.
    """

    key: str
    title: str
    auc: Interval
    fold_aucs: tuple[float, ...]
    probabilities: tuple[float, ...]
    judgement: Judgement
    leaky: bool


class Comparison(Record):
    """Paired DeLong test between two arms on the same cases."""

    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float


class FoldBalance(Record):
    """What one way of balancing added to one training fold (positive, negative)."""

    fold: str
    data: str
    real: tuple[int, int]
    synthetic: tuple[int, int]
    drawn: int
    rejected: int


class StudyResults(Record):
    """All figures of a PNI study; each interval carries its n and its method.

    Attributes:
        cases, folds, outcomes: per held-out case, in one order; ``folds`` is the fold it was held
            out in.
        ceiling_auc: AUC of the true probabilities, which a phantom knows; None for real data.
        segmentation: Dice of NeoSeg per class on held-out scans.
        fidelity: synthetic patches on held-out masks against the held-out patches, per plane.
        adherence, adherence_of_real: Dice of NeoSeg's reading against the mask, on synthetic and on
            real held-out patches, per class.
        copying_share, copying_expected: share of synthetic patches nearer to a training than to a
            held-out patch, and what it would be without copying.
        membership: AUC by which the flow loss tells training from held-out cases, of each fold's
            generator; losses of different generators are not pooled.
        two_sample: AUC with which region features tell synthetic from real held-out patches.
        psnr_db: of the autoencoder's reconstruction of held-out patches.
        seconds: wall time per kind of stage in this run folder.
    """

    title: str
    outcome: str
    classes: tuple[str, ...]
    cases: tuple[str, ...]
    folds: tuple[int, ...]
    outcomes: tuple[int, ...]
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    ceiling_auc: Interval | None
    segmentation: dict[str, Interval]
    no_tumour_found: int
    balance: tuple[FoldBalance, ...]
    fidelity: tuple[FidelityScore, ...]
    adherence: dict[str, Interval]
    adherence_of_real: dict[str, Interval]
    copying_share: Interval
    copying_expected: float
    membership: tuple[Interval, ...]
    two_sample: Interval
    psnr_db: Interval
    seconds: dict[str, float]

    def _repr_html_(self) -> str:
        """The table of arms, for notebooks."""
        shown = [(arm.title, arm.auc) for arm in self.arms]
        if self.ceiling_auc is not None:
            shown.append(("best reachable", self.ceiling_auc))
        rows = [(title, f"{of.value:.2f} [{of.low:.2f}, {of.high:.2f}]") for title, of in shown]
        return table_html(("arm", "pooled AUC [95 %]"), rows)

    @classmethod
    def read(cls, run: Path) -> StudyResults:
        """Of a finished study.

        Raises:
            InputError: the folder holds none, or one of another version.
        """
        path = run / "results.json"
        if not path.is_file():
            raise InputError(
                f"{run} holds no results.json, so it is no finished study. Finish one first: "
                "'neonet3d study pni COHORT OUT' goes on where it stopped."
            )
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the file"
            raise InputError(
                f"{path} is not what this version of neonet3d writes "
                f"({place}: {error.errors()[0]['msg']}). Run the study again with this version."
            ) from error
