"""Configuration: frozen models that refuse unknown keys, filled by ``presets/*.yaml``.

Order of precedence: preset, then ``--config FILE``, then ``--set section.key=value``. Every default
stands in a preset file with a comment; the models below carry none, so nothing is set twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from neonet3d.config_classification import ArmConfig as ArmConfig
from neonet3d.config_classification import AttentionName as AttentionName
from neonet3d.config_classification import BaselineConfig as BaselineConfig
from neonet3d.config_classification import BaselineName as BaselineName
from neonet3d.config_classification import ClassifierConfig as ClassifierConfig
from neonet3d.config_classification import ClinicalConfig as ClinicalConfig
from neonet3d.config_classification import Drawing as Drawing
from neonet3d.config_classification import EncoderKind as EncoderKind
from neonet3d.config_classification import FeatureKind as FeatureKind
from neonet3d.config_classification import RadiomicsConfig as RadiomicsConfig
from neonet3d.config_section import Fraction, Section
from neonet3d.config_section import LoopConfig as LoopConfig
from neonet3d.errors import InputError

PRESETS = ("demo", "cpu", "gpu", "paper", "liver")
Sizes = tuple[PositiveInt, PositiveInt, PositiveInt]
Lengths = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class PhantomConfig(Section):
    n: PositiveInt
    spacing_mm: Lengths
    field_of_view_mm: Lengths


class RoiConfig(Section):
    """TLCR's window (``segmentation/tlcr.py``)."""

    around: Literal["tumour", "liver"]
    shape: Sizes
    spacing_mm: Lengths
    margin_mm: float = Field(ge=0)
    minimum_volume_mm3: float = Field(ge=0)


NetworkName = Literal["unet", "plain_unet", "vnet", "attention_unet", "segresnet", "dynunet"]


class SegmenterPlan(Section):
    """The sizes of a segmenter (``segmentation/plan.py``), enough to build it.

    Attributes:
        stem: a Haar transform before the network and its inverse after it.
        spacing_mm, patch: the grid it works on.
        channels: features per level.
        strides: from each level to the next, per axis; one fewer than ``channels``.
    """

    network: NetworkName
    stem: bool
    spacing_mm: Lengths
    patch: Sizes
    channels: tuple[PositiveInt, ...]
    strides: tuple[Sizes, ...]


class AugmentationConfig(Section):
    """What training patches go through (``segmentation/augment.py``)."""

    flip_axes: frozenset[Literal[0, 1, 2]]
    spatial: float = Fraction
    intensity: float = Fraction


class SegmenterConfig(Section):
    """What the cohort's fingerprint does not decide; a null leaves the choice to it."""

    network: NetworkName
    stem: bool | None
    spacing_mm: Lengths | None
    patch: Sizes | None
    channels: tuple[PositiveInt, ...] | None
    strides: tuple[Sizes, ...] | None
    width: PositiveInt
    patch_voxels: PositiveInt
    full_resolution_voxels: NonNegativeInt
    validation_share: float = Field(ge=0, lt=1)
    evaluations: PositiveInt
    patience: PositiveInt
    localiser_steps: PositiveInt
    augmentation: AugmentationConfig
    loop: LoopConfig


class AutoencoderConfig(Section):
    channels: PositiveInt
    latent_channels: PositiveInt
    kl_weight: float = Field(ge=0)
    loop: LoopConfig


class UNetConfig(Section):
    channels: tuple[PositiveInt, PositiveInt]
    dropout: float = Fraction
    null_label_fraction: float = Fraction
    loop: LoopConfig


class ControlNetConfig(Section):
    foreground_weight: PositiveFloat
    guidance: float = Field(ge=1)
    loop: LoopConfig


class DetailConfig(Section):
    channels: PositiveInt
    loop: LoopConfig


class MaskAutoencoderConfig(Section):
    channels: PositiveInt
    latent_channels: PositiveInt
    kl_weight: float = Field(ge=0)
    loop: LoopConfig


class MaskNetworksConfig(Section):
    """What the generator of label maps is trained with."""

    autoencoder: MaskAutoencoderConfig
    flow: UNetConfig


class MasksConfig(MaskNetworksConfig):
    """The generator of label maps (``generation/mask_generator.py``), and how it draws.

    Attributes:
        start: t of the flow, from which a deformed mask of training is drawn again; 1 is noise
            alone.
        steps: of the flow, from 1.
        volume_factor: a drawn tumour may be so many times too large or small, and is then resized.
        attempts: draws of a map before giving up.
    """

    start: float = Field(gt=0, le=1)
    steps: PositiveInt
    volume_factor: float = Field(ge=1)
    attempts: PositiveInt

    @property
    def networks(self) -> MaskNetworksConfig:
        """Without what matters in drawing alone."""
        return MaskNetworksConfig(autoencoder=self.autoencoder, flow=self.flow)


SamplerName = Literal["exponential", "euler", "heun"]


class SamplerConfig(Section):
    """How the flow is integrated (``generation/flow.py``)."""

    method: SamplerName
    steps: PositiveInt
    guidance: float = Field(ge=1)
    mask_guidance: float = Field(ge=1)


class BalanceConfig(Section):
    mode: Literal["rare_class", "both_classes", "pretrain"]
    masks: Literal["either", "same"]
    synthetic_share: float = Field(ge=0, lt=1)
    adherence_quantile: float = Fraction
    attempts: PositiveInt


class StudyConfig(Section):
    folds: int = Field(ge=2)
    arms: tuple[ArmConfig, ...] = Field(min_length=1)


class AugmentationStudyConfig(Section):
    """The 3D-LLDM experiment (``study/augmentation.py``)."""

    real_cases: tuple[PositiveInt, ...] = Field(min_length=1)
    networks: tuple[NetworkName, ...] = Field(min_length=1)
    ratios: tuple[PositiveFloat, ...] = Field(min_length=1)
    combined: bool
    seeds: PositiveInt
    width: PositiveInt
    generator_share: float = Field(gt=0, le=1)
    rivals: tuple[str, ...]
    loop: LoopConfig


class Config(Section):
    """Everything that a run depends on, fully resolved."""

    seed: NonNegativeInt
    phantom: PhantomConfig
    roi: RoiConfig
    segmenter: SegmenterConfig
    autoencoder: AutoencoderConfig
    unet: UNetConfig
    controlnet: ControlNetConfig
    detail: DetailConfig
    masks: MasksConfig
    sampler: SamplerConfig
    balance: BalanceConfig
    classifier: ClassifierConfig
    baseline: BaselineConfig
    radiomics: RadiomicsConfig
    clinical: ClinicalConfig
    study: StudyConfig
    augmentation_study: AugmentationStudyConfig


def load_config(
    preset: str,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    seed: int | None = None,
) -> Config:
    """Resolve a configuration.

    Raises:
        InputError: unknown preset or key, a value that does not fit, an unreadable file.
    """
    if preset not in PRESETS:
        raise InputError(f"There is no preset {preset!r}. Choose one of {', '.join(PRESETS)}.")
    text = resources.files("neonet3d").joinpath("presets", f"{preset}.yaml").read_text("utf-8")
    values: dict[str, Any] = yaml.safe_load(text)
    if file is not None:
        if not file.is_file():
            raise InputError(f"There is no configuration file {file}. Check the path.")
        _merge(values, _parse(file.read_bytes(), where=str(file)) or {}, where=str(file))
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise InputError(f"--set {override!r} has no '='. Write it as section.key=value.")
        tree: Any = _parse(value, where=f"--set {override!r}")
        for part in reversed(key.split(".")):
            tree = {part: tree}
        _merge(values, tree, where=f"--set {override!r}")
    if seed is not None:
        values["seed"] = seed
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        hint = (
            "there is no such key" if first["type"] == "extra_forbidden" else first["msg"].lower()
        )
        raise InputError(
            f"Configuration key {place}: {hint}. 'neonet3d info --preset {preset}' lists the keys."
        ) from error


def _parse(text: str | bytes, *, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{where} is not YAML: {reason}. Mend it; see the preset files."
        ) from error


def _merge(into: dict[str, Any], values: Any, *, where: str) -> None:
    if not isinstance(values, dict):
        raise InputError(f"{where} holds no 'section: key: value' lines. See the preset files.")
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, where=where)
        else:
            into[key] = value


def fingerprint(*parts: object) -> str:
    """A short hash of configs, strings and lists; says whether a stage must run again."""
    plain = [
        part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts
    ]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
