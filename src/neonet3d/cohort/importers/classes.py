"""Which classes of the masks that were brought become which of the cohort's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema

EXAMPLE = '--label-map "liver=5,portal_vein=25"'


@dataclass(frozen=True)
class ClassMap:
    """Classes of the cohort and what stands for them in the masks that were brought.

    Everything that is not named becomes background; nothing is guessed from a value or a name.

    Attributes:
        entries: (class of the cohort, value or name in the source), in the order given. A class
            that is listed twice joins two of the source.
    """

    entries: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> ClassMap:
        """From ``liver=5,portal_vein=25``.

        Raises:
            InputError: no such list, an unsafe class name, a source that is named twice.
        """
        entries = []
        for part in text.split(","):
            name, equals, origin = (piece.strip() for piece in part.partition("="))
            if not equals or not origin or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise InputError(
                    f"--label-map: {part.strip()!r} is not CLASS=VALUE with a class of letters, "
                    f"digits and '_'. Write {EXAMPLE}."
                )
            if name == "background" or origin == "0":
                raise InputError(
                    f"--label-map: {part.strip()!r} names the background, which is all that is not "
                    "listed. Leave it out."
                )
            entries.append((name, origin))
        origins = [origin for _, origin in entries]
        repeated = [origin for origin in origins if origins.count(origin) > 1]
        if repeated:
            raise InputError(f"--label-map gives {repeated[0]!r} two classes. Keep one.")
        return cls(tuple(entries))

    @property
    def schema(self) -> LabelSchema:
        """``background`` and the classes in the order in which they were first named."""
        return LabelSchema(("background", *dict.fromkeys(name for name, _ in self.entries)))

    def values(self, known: Mapping[str, int] | None, *, where: str) -> dict[int, int]:
        """Values of the source and the cohort's values for them.

        Args:
            known: the source's own names of its values; None where it has none.
            where: what the source is, for error messages.

        Raises:
            InputError: a source that is neither a value nor a known name.
        """
        schema, found = self.schema, {}
        for name, origin in self.entries:
            value = int(origin) if origin.isdecimal() else (known or {}).get(origin)
            if value is None or (known is not None and value not in known.values()):
                listed = f"it has {dict(known)}" if known else "its masks hold numbers alone"
                raise InputError(
                    f"--label-map: {where} has no class {origin!r} for {name!r}; {listed}. "
                    f"Write for example {EXAMPLE}."
                )
            if value in found:
                raise InputError(f"--label-map gives the value {value} two classes. Keep one.")
            found[value] = schema.value(name)
        return found

    def as_mapping(self) -> dict[str, list[str]]:
        """``{"liver": ["5"], ...}``, as dataset.json records it."""
        listed: dict[str, list[str]] = {}
        for name, origin in self.entries:
            listed.setdefault(name, []).append(origin)
        return listed


def keep_classes(mask: Volume, values: Mapping[int, int]) -> Volume:
    """A mask with source values as the cohort's uint8 label map; all else is background."""
    kept = np.zeros(mask.shape, dtype=np.uint8)
    for origin, value in values.items():
        kept[mask.data == origin] = value
    return mask.with_data(kept)
