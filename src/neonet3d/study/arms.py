"""The arms of the NeoNet experiment: a classifier, what it is trained on, how that is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from neonet3d.classification.networks import TITLES
from neonet3d.config import ArmConfig, Config
from neonet3d.errors import InputError

DATA = {
    "real": "real cases",
    "classic": "real + augmented copies",
    "rare_class": "real + synthetic of the rare class to 1:1",
    "both_classes": "real + synthetic of both classes, 1:1",
    "synthetic": "synthetic cases alone, 1:1",
    "pretrain": "synthetic 1:1 first, then real cases",
}
DRAWING = {
    "balanced": "",
    "natural": ", as they come",
    "weighted": ", class weights",
}
LEAKY = "leaky"
MODELS: dict[str, str] = {
    "patten": "PattenNet",
    "radiomics": "Radiomics",
    "clinical": "Clinical model",
    **{str(name): title for name, title in TITLES.items()},
}


@dataclass(frozen=True)
class Arm:
    """One row of the study's table.

    Attributes:
        settings: as the configuration has them.
    """

    settings: ArmConfig

    @property
    def classifier(self) -> str:
        """Names what is trained, on disk; arms that differ in what they are judged on share it."""
        of = self.settings
        parts: list[str] = [of.model, of.data]
        if of.share is not None:
            parts.append(f"{of.share:g}")
        if of.drawing not in (None, "balanced"):
            parts.append(of.drawing)
        return "-".join(parts + [LEAKY] * of.leaky)

    @property
    def key(self) -> str:
        return self.classifier + ("-reference" if self.settings.masks == "reference" else "")

    @property
    def data_set(self) -> str:
        """Names the training set on disk."""
        of = self.settings
        data = "synthetic" if of.data == "pretrain" else of.data
        parts = [data] if of.share is None else [data, f"{of.share:g}"]
        return "-".join(parts + [LEAKY] * (of.leaky and self.has_synthetic))

    @property
    def has_synthetic(self) -> bool:
        return self.settings.data not in ("real", "classic")

    @property
    def title(self) -> str:
        of = self.settings
        share = "" if of.share is None else f" ({of.share:.0%} of the larger synthetic)"
        judged = ", judged on reference masks" if of.masks == "reference" else ""
        drawn = "" if of.drawing is None else DRAWING[of.drawing]
        leak = ", LEAKY: encoder and generator saw all patients" if of.leaky else ""
        return f"{MODELS[of.model]}, {DATA[of.data]}{share}{drawn}{judged}{leak}"

    def config(self, config: Config) -> Config:
        """The configuration with which it is trained."""
        of = self.settings
        drawing: dict[str, object] = {} if of.drawing is None else {"drawing": of.drawing}
        match of.model:
            case "patten":
                name, changed = "classifier", drawing
            case "radiomics":
                name, changed = "radiomics", drawing
            case "clinical":
                return config
            case network:
                same = network == config.baseline.network
                width = {} if same else {"width": 1.0}  # the preset's is of its own network
                name, changed = "baseline", drawing | {"network": network} | width
        section = getattr(config, name).model_copy(update=changed)
        return config.model_copy(update={name: section})


def with_leaky_twin(config: Config) -> Config:
    """The same study with the first arm once more, its encoder and generator trained on all.

    Raises:
        InputError: the first arm has neither.
    """
    first, *_ = config.study.arms
    try:
        twin = ArmConfig.model_validate(first.model_dump() | {"leaky": True})
    except ValidationError as error:
        raise InputError(
            f"--leaky repeats the first of study.arms, and {error.errors()[0]['msg']}. Begin with "
            "another arm."
        ) from error
    study = config.study.model_copy(update={"arms": (*config.study.arms, twin)})
    return config.model_copy(update={"study": study})


def study_arms(config: Config) -> tuple[Arm, ...]:
    """Of a study, the first being the one that all others are compared with.

    Raises:
        InputError: two arms that are the same, or a leaky first one.
    """
    arms = tuple(Arm(settings) for settings in config.study.arms)
    if arms[0].settings.leaky:
        raise InputError(
            "The first of study.arms is leaky, and all others are compared with it. Begin with an "
            "arm that did not see the held-out patients."
        )
    keys = [arm.key for arm in arms]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise InputError(f"study.arms has {twice[0]} twice. Keep one of them.")
    return arms


def first_patten(config: Config) -> Arm:
    """The first honest PattenNet of a study, which explains its cases and reads new ones.

    Raises:
        InputError: there is none.
    """
    for arm in study_arms(config):
        if arm.settings.model == "patten" and not arm.settings.leaky:
            return arm
    raise InputError(
        "The study has no PattenNet among its honest arms, and only that explains single cases. "
        "Add {model: patten} to study.arms and start the run again; what is done stays."
    )
