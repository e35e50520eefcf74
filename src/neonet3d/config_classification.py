"""Sections of the configuration that NeoCls reads."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from neonet3d.config_section import Fraction, LoopConfig, Section

EncoderKind = Literal["frozen", "random", "trainable"]
FeatureKind = Literal["residual", "maps"]
ReadingName = Literal["deep", "appearance"]
Drawing = Literal["balanced", "natural", "weighted"]
AttentionName = Literal["cbam", "danet", "channel", "spatial", "none"]
BaselineName = Literal[
    "resnet18", "resnet50", "densenet121", "efficientnet_b0", "seresnet50", "vit"
]
ArmModel = Literal["patten", "radiomics", "clinical"] | BaselineName
ArmData = Literal["real", "classic", "rare_class", "both_classes", "synthetic", "pretrain"]


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
    drawing: Drawing
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
    drawing: Drawing
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
    drawing: Drawing


class ClinicalConfig(Section):
    """Clinical variables of ``classification/clinical.py``."""

    columns: tuple[str, ...]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("a column is named twice; name each once")
        return self


class ArmConfig(Section):
    """One row of the NeoNet table (``study/arms.py``).

    Attributes:
        data: what it is trained on.
        drawing: how that is drawn and weighed; None for what the model's section says.
        share: of the larger class that is synthetic, for ``both_classes``; None for the balance
            section's.
        masks: on whose masks held-out patches are cropped and read.
        leaky: encoder and generator saw every patient, held-out ones included. It is there to show
            what that pretends, and no estimate of anything.
    """

    model: ArmModel
    data: ArmData
    drawing: Drawing | None = None
    share: float | None = Field(default=None, gt=0, lt=1)
    masks: Literal["predicted", "reference"] = "predicted"
    leaky: bool = False

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.share is not None and self.data != "both_classes":
            raise ValueError("only both_classes has a share")
        if self.data == "pretrain" and self.model in ("radiomics", "clinical"):
            raise ValueError(f"{self.model} has no weights to go on from; pretrain a network")
        if self.model == "clinical" and self.leaky:
            raise ValueError("the clinical model has neither encoder nor generator to leak from")
        if self.model == "clinical" and self.drawing not in (None, "balanced"):
            raise ValueError("the clinical model weighs classes alike and draws nothing")
        if self.model == "clinical" and self.data != "real":
            raise ValueError("the clinical model reads a table, which only real cases have")
        return self
