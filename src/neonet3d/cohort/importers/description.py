"""dataset.json of the Decathlon and of nnU-Net: read, and told from each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neonet3d.cohort.class_names import class_name
from neonet3d.errors import InputError


def read_dataset_json(source: Path) -> dict[str, Any]:
    """The description as it stands.

    Raises:
        InputError: no JSON object.
    """
    path = source / "dataset.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}). Copy it again from its source.") from error
    if not isinstance(description, dict):
        raise InputError(f"{path} is a list, not a description. Copy it again from its source.")
    return description


def is_nnunet(description: Mapping[str, Any]) -> bool:
    """nnU-Net v2 names channels and finds its cases; the Decathlon lists them."""
    return "channel_names" in description and not isinstance(description.get("training"), list)


def origin_of(description: Mapping[str, Any], layout: str) -> dict[str, object]:
    """What dataset.json of the cohort says of where it comes from."""
    given = ("name", "description", "reference", "licence", "license")
    origin: dict[str, object] = {k: str(description[k]) for k in given if k in description}
    return {"layout": layout} | origin


def class_values(labels: Mapping[str, int], source: Path) -> dict[str, int]:
    """Names of the classes in the field's manner (``hepatic_vein``), and their values.

    Raises:
        InputError: two names that become the same.
    """
    values = {class_name(name): value for name, value in labels.items()}
    if len(values) < len(labels):
        raise InputError(
            f"{source / 'dataset.json'}: two classes of {list(labels)} have the same "
            "name. Rename one."
        )
    return values
