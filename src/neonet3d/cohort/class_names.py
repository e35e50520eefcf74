"""Classes that the package does something about, and names that look like theirs but are not.

TLCR looks for ``tumour`` and nothing else: a ``tumor`` or a ``cancer`` is an organ like any other,
and every patch would show the middle of the liver.
"""

from __future__ import annotations

import re

from neonet3d.types import LabelSchema

KNOWN = ("liver", "portal_vein", "hepatic_vein", "tumour")
TUMOUR_WORDS = frozenset(
    {"tumor", "tumors", "tumours", "cancer", "carcinoma", "cholangiocarcinoma", "cca", "icc", "hcc"}
    | {"lesion", "lesions", "mass", "metastasis", "metastases"}
)


def class_name(name: str) -> str:
    """``Hepatic vein`` to ``hepatic_vein``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def misnamed_classes(schema: LabelSchema) -> dict[str, str]:
    """Classes that look like one of ``KNOWN`` that the schema lacks, and that one's name."""
    found = {}
    for name in schema.names[1:]:
        ours = class_name(name)
        if TUMOUR_WORDS & set(ours.split("_")):
            ours = "tumour"
        if ours in KNOWN and ours not in schema:
            found[name] = ours
    return found


def mend_of(misnamed: dict[str, str]) -> str:
    """What to do about such names, as a sentence."""
    renamed = " and ".join(f"{name!r} to {ours!r}" for name, ours in misnamed.items())
    return f"Rename {renamed} in dataset.json, or import the masks with --label-map."
