"""What ``neonet3d classify predict --json`` prints, read back and checked."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class SaidModel(BaseModel):
    kind: str
    weights_sha256: str


class SaidCertainty(BaseModel):
    interval: tuple[Probability, Probability]
    may_be: list[int]
    unfamiliar: bool


class Said(BaseModel):
    """By case; further keys are left alone.

    Attributes:
        certainty: of a PattenNet; empty for other models.
    """

    outcome: str
    model: SaidModel
    probability: dict[str, Probability]
    certainty: dict[str, SaidCertainty]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for case, sure in self.certainty.items():
            low, high = sure.interval
            if case not in self.probability or not low <= self.probability[case] <= high:
                raise ValueError("an interval does not hold its probability")
        return self
