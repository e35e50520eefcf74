"""What every section of the configuration is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt

Fraction = Field(ge=0, le=1)


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LoopConfig(Section):
    """One training loop (``engine/loop.py``)."""

    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: float = Field(ge=0)
    ema_decay: float = Fraction
