"""Array aliases with shapes, and the label schema that names what a mask holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neonet3d.errors import InputError

ImageArray = Float[np.ndarray, "x y z"]
LabelMap = UInt8[np.ndarray, "x y z"]
Affine = Float[np.ndarray, "4 4"]

ImageBatch = Float[Tensor, "b 1 x y z"]
LabelBatch = Int[Tensor, "b x y z"]
OneHotBatch = Float[Tensor, "b k x y z"]
LatentBatch = Float[Tensor, "b c x y z"]

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]

Advance = Callable[..., None]  # ``advance(n=1, note="")``, called after each unit of work


def no_advance(n: int = 1, note: str = "") -> None:
    """For a caller that shows no progress."""


@dataclass(frozen=True)
class LabelSchema:
    """Names of the classes of a label map; the position in ``names`` is the voxel value.

    Value 0 is always ``background``. The field's names are used as they are
    (``liver``, ``portal_vein``, ``hepatic_vein``, ``tumour``); nothing is guessed from a value.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names or self.names[0] != "background":
            raise InputError(
                f"The label schema {list(self.names)} does not begin with 'background' = 0. "
                "Give every class a name, with background first."
            )
        if len(set(self.names)) != len(self.names):
            raise InputError(f"The label schema {list(self.names)} names a class twice.")

    @classmethod
    def from_mapping(cls, labels: Mapping[str, int]) -> LabelSchema:
        """From nnU-Net's ``{"background": 0, "liver": 1, ...}``; values must be 0, 1, 2, ...

        Raises:
            InputError: when a value is no whole number or the values leave a gap.
        """
        listed = [name for name, value in labels.items() if not isinstance(value, int)]
        if listed:
            raise InputError(
                f"The class {listed[0]!r} has the value {labels[listed[0]]!r}, not a whole number. "
                "Regions and lists of values are not supported; give each class one value."
            )
        by_value = {int(value): name for name, value in labels.items()}
        if sorted(by_value) != list(range(len(labels))):
            raise InputError(
                f"The label values {sorted(labels.values())} are not 0, 1, 2, ... without a gap. "
                "Renumber the masks or map them on import."
            )
        return cls(tuple(by_value[value] for value in range(len(by_value))))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def value(self, name: str) -> int:
        """Voxel value of a class.

        Raises:
            InputError: when the schema has no such class.
        """
        if name not in self.names:
            raise InputError(
                f"There is no class {name!r} in this cohort's masks, which hold "
                f"{list(self.names)}. Choose one of these or rename it in dataset.json."
            )
        return self.names.index(name)

    def as_mapping(self) -> dict[str, int]:
        return {name: value for value, name in enumerate(self.names)}
