"""Sections of the configuration that NeoCls reads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from neonet3d.config_section import Fraction, LoopConfig, Section

EncoderKind = Literal["frozen", "random", "trainable"]
FeatureKind = Literal["residual", "maps"]
ReadingName = Literal["deep", "appearance"]
AttentionName = Literal["cbam", "danet", "channel", "spatial", "none"]
BaselineName = Literal[
    "resnet18", "resnet50", "densenet121", "efficientnet_b0", "seresnet50", "vit"
]


class ClassifierConfig(Section):
    """PattenNet (``classification/patten.py``)."""

    features: FeatureKind
    readings: tuple[ReadingName, ...] = Field(min_length=1)
    channels: PositiveInt
    attention: AttentionName
    encoder: EncoderKind
    masks_as_channels: bool
    members: int = Field(ge=2)
    shell_mm: PositiveFloat
    dropout: float = Fraction
    encodings: PositiveInt
    loop: LoopConfig

    @model_validator(mode="after")
    def _anatomy_is_of_the_frozen_encoder(self) -> Self:
        if self.encoder != "frozen" and self.needs_anatomy:
            raise ValueError(
                f"the anatomy prior belongs to the frozen encoder; with a {self.encoder} one say "
                "features=maps and readings=[deep]"
            )
        return self

    @property
    def needs_anatomy(self) -> bool:
        """Whether it reads what the anatomy prior leaves, which takes masks."""
        return self.features == "residual" or "appearance" in self.readings


class BaselineConfig(Section):
    network: BaselineName
    width: PositiveFloat
    loop: LoopConfig

    @model_validator(mode="after")
    def _width_is_of_resnets(self) -> Self:
        if self.width != 1 and not self.network.startswith("resnet"):
            raise ValueError(f"only a resnet has a width; for {self.network} it must be 1")
        return self


class RadiomicsConfig(Section):
    """Features of ``classification/radiomics``."""

    bins: PositiveInt
    shell_mm: PositiveFloat


class ClinicalConfig(Section):
    """Clinical variables of ``classification/clinical.py``."""

    columns: tuple[str, ...]
