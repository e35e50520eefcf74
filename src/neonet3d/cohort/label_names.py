"""Names of the classes in the header of a mask, where viewers look for them.

NIfTI's intent says that voxels are labels, and Caret's extension names them, as TotalSegmentator's
masks do (``totalsegmentator/nifti_ext_header.py``). Nothing else goes in: no date, no identifier.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from nibabel.nifti1 import Nifti1Extension

from neonet3d.errors import InputError
from neonet3d.types import LabelSchema

LABEL_INTENT = (1002, "labels")  # NIFTI_INTENT_LABEL
CARET = 30  # NIFTI_ECODE_CARET
GOLDEN_ANGLE = 0.382  # of the circle of hues: neighbouring labels look different


def label_table(schema: LabelSchema) -> Nifti1Extension:
    """The extension that names every class but the background, with a colour for each."""
    labels = "".join(
        f'<Label Key="{value}" {_colour(value)}>{escape(name)}</Label>\n'
        for name, value in schema.as_mapping().items()
        if value > 0
    )
    table = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<CaretExtension>\n'
        f'<VolumeInformation Index="0">\n<LabelTable>\n{labels}</LabelTable>\n'
        "<VolumeType>Label</VolumeType>\n</VolumeInformation>\n</CaretExtension>\n"
    )
    return Nifti1Extension(CARET, table.encode())


def label_names(extensions: Sequence[Nifti1Extension], name: str) -> dict[int, str] | None:
    """Value and name of each class that a header's table names, from this package or another.

    Args:
        extensions: of a header.
        name: how error messages call the file.

    Returns:
        None where there is no table.

    Raises:
        InputError: a table that is no XML, or that defines entities.
    """
    for extension in extensions:
        content = _content(extension)
        if b"<CaretExtension" in content:
            return _parse(content, name)
    return None


def is_label_table(extension: Nifti1Extension) -> bool:
    """Whether an extension holds a table as this package writes it, and nothing besides."""
    try:
        names = label_names([extension], "mask") or {}
        schema = LabelSchema.from_mapping({"background": 0} | {n: v for v, n in names.items()})
    except InputError:
        return False  # some other program's text
    return _content(extension) == _content(label_table(schema))


def _parse(content: bytes, name: str) -> dict[int, str]:
    text = content.decode("utf-8", errors="replace").strip("\0 \n")
    if "<!ENTITY" in text:
        raise InputError(
            f"{name}: the label table in its header defines entities, which can fill the memory. "
            "Export the mask again."
        )
    try:
        labels = ElementTree.fromstring(text).iter("Label")
        return {int(label.attrib["Key"]): (label.text or "").strip() for label in labels}
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise InputError(
            f"{name}: the label table in its header cannot be read ({error!r}). "
            "Export the mask again."
        ) from error


def _content(extension: Nifti1Extension) -> bytes:
    """Its bytes without the padding to a multiple of 16."""
    return bytes(extension.content).rstrip(b"\0 \n")


def _colour(value: int) -> str:
    """A hue that is far from those of the labels beside it."""
    parts = zip(
        ("Red", "Green", "Blue"), colorsys.hsv_to_rgb(value * GOLDEN_ANGLE % 1, 0.8, 1), strict=True
    )
    return " ".join(f'{name}="{part:.3f}"' for name, part in parts) + ' Alpha="1"'
