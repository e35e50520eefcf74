"""One case of a cohort: the row of the table and the files that belong to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from neonet3d.cohort.layout import OUTCOMES, require_inside, without_leading_zeros
from neonet3d.cohort.nifti import read_nifti, read_verified
from neonet3d.cohort.volume import (
    Volume,
    read_label_map,
    read_volume,
    require_same_grid,
    to_canonical,
)
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema


@dataclass(frozen=True)
class Case:
    """One scan of one patient; nothing is read before it is asked for."""

    name: str
    participant: str
    outcome: int | None
    split: str | None
    synthetic: bool
    image_path: Path
    mask_path: Path | None
    schema: LabelSchema

    def read_image(self) -> Volume:
        return read_volume(self.image_path, name=self.name)

    def read_mask(self) -> Volume | None:
        if self.mask_path is None:
            return None
        return read_label_map(self.mask_path, n_classes=len(self.schema), name=self.name)

    def read(self) -> tuple[Volume, Volume | None]:
        """Image and mask, known to lie on the same grid."""
        image, mask = self.read_image(), self.read_mask()
        if mask is not None:
            require_same_grid(image, mask, name=self.name)
        return image, mask

    def read_with_mask(self) -> tuple[Volume, Volume]:
        """Image and mask for a stage that cannot do without one."""
        self.require_mask()
        image, mask = self.read()
        assert mask is not None
        return image, mask

    def require_mask(self) -> None:
        """Refuse a case without a mask before anything is read or written."""
        if self.mask_path is None:
            raise InputError(
                f"{self.name}: there is no mask in labelsTr. "
                "Draw one, or run 'neonet3d segment predict' first."
            )

    def digest(self) -> str:
        """SHA-256 over image, mask and outcome: says that a model saw it, not whose it is.

        Of what the files hold and not of how they are compressed, which differs between kinds of
        machine.
        """
        digest = hashlib.sha256(_content_sha256(self.image_path, self.name))
        if self.mask_path is not None:
            digest.update(_content_sha256(self.mask_path, self.name))
        digest.update(str(self.outcome).encode())
        return digest.hexdigest()

    def scan_digest(self) -> str:
        """SHA-256 over the image's voxels and where they lie, whatever stands beside them.

        ``digest`` changes when an outcome is filled in, a mask corrected or a header mended; whose
        scan it is does not.
        """
        state = self.image_path.stat()
        return _remembered_scan(self.image_path, self.name, state.st_mtime_ns, state.st_size)


def _content_sha256(path: Path, name: str) -> bytes:
    state = path.stat()
    return _remembered_sha256(path, name, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8192)
def _remembered_sha256(path: Path, name: str, modified_ns: int, size: int) -> bytes:
    """A digest is asked for at every stage; a file that did not change is inflated once."""
    return hashlib.sha256(read_verified(path, name)).digest()


@lru_cache(maxsize=8192)
def _remembered_scan(path: Path, name: str, modified_ns: int, size: int) -> str:
    file = read_nifti(path, name)
    image = to_canonical(file.data, file.image.affine, dtype=np.float32, source=path)
    digest = hashlib.sha256(np.ascontiguousarray(image.data).tobytes())
    digest.update(image.affine.round(3).astype(np.float32).tobytes())
    return digest.hexdigest()


def case_of_row(
    root: Path, schema: LabelSchema, outcome_name: str | None, row: Mapping[Any, Any]
) -> Case:
    """The case that a row of participants.tsv names, with its files found in the folder.

    Raises:
        InputError: no scan, a file behind a link that leads out of the folder, an outcome that is
            not 0 or 1.
    """
    name = row["case"]
    image_path = root / "imagesTr" / f"{name}_0000.nii.gz"
    mask_path = root / "labelsTr" / f"{name}.nii.gz"
    if not image_path.is_file():
        original = without_leading_zeros(root, name)
        if original is not None:
            raise InputError(
                f"{name} is listed in participants.tsv where there is a scan {original}: Excel "
                "dropped the leading zeros. Format the column as text and save the table again."
            )
        raise InputError(
            f"{name} is listed in participants.tsv but there is no {image_path}. "
            "Add the scan or remove the row."
        )
    with_mask = mask_path.is_file()
    for path in (image_path, mask_path) if with_mask else (image_path,):
        require_inside(root, path, name=name)
    split = row.get("split")
    return Case(
        name=name,
        participant=row["participant_id"],
        outcome=_outcome(row[outcome_name], name, outcome_name) if outcome_name else None,
        split=split if isinstance(split, str) else None,
        synthetic=row.get("synthetic") == "1",
        image_path=image_path,
        mask_path=mask_path if with_mask else None,
        schema=schema,
    )


def _outcome(value: object, name: str, column: str) -> int | None:
    if not isinstance(value, str):
        return None
    if value not in OUTCOMES:
        raise InputError(f"{name}: {column} is {value!r}, not 0 or 1. Mend participants.tsv.")
    return OUTCOMES[value]
