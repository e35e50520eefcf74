"""Import from a MedMNIST3D file (MedMNIST v2, Yang et al., Scientific Data 2023).

A ``.npz`` with ``{train,val,test}_images`` (n, x, y, z) uint8 and ``{train,val,test}_labels``
(n, 1). There are no patients and no voxel size: each sample counts as its own patient, and 1 mm is
written for want of the truth. There are no masks either; but where every image is a shape, of two
values, the shape is its own mask.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.types import Advance, LabelSchema, no_advance

SPLITS = ("train", "val", "test")
OUTCOME_NAMES = {"vesselmnist3d": "aneurysm"}  # 0 = vessel, 1 = aneurysm
SHAPE_NAMES = {"vesselmnist3d": "vessel"}  # of what a binary image shows

Samples = tuple[UInt8[np.ndarray, "n x y z"], Int[np.ndarray, " n"]]


def import_medmnist(
    source: Path,
    out: Path,
    *,
    outcome_name: str | None = None,
    advance: Advance = no_advance,
) -> Cohort:
    """Write a MedMNIST3D file as a cohort with its official split.

    Args:
        source: the ``.npz``.
        out: the cohort; must not exist or be empty. Nothing is left there when it fails.
        outcome_name: what the label 1 means; known for vesselmnist3d.
        advance: called once per sample.

    Returns:
        Cases ``train_0000``, ...: split and index in the file. Binary images come with masks.

    Raises:
        InputError: not a MedMNIST3D file, labels of more than two classes, an outcome without a
            name, a constant sample, an ``out`` that is not empty.
    """
    outcome_name = outcome_name or _known_outcome(source)
    samples = {split: _read_split(source, split) for split in SPLITS}
    _require_binary(source, np.concatenate([labels for _, labels in samples.values()]))
    shapes = all(_of_two_values(images) for images, _ in samples.values())
    names = ("background", _shape_name(source)) if shapes else ("background",)
    with new_folder(out) as folder:
        writer = CohortWriter(
            folder,
            LabelSchema(names),
            outcome_name=outcome_name,
            channel="unknown",
            durable=False,
        )
        for split, (images, labels) in samples.items():
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                name = f"{split}_{index:04d}"
                if image.min() == image.max():
                    raise InputError(
                        f"{name}: every voxel of this sample of {source} has the value "
                        f"{image.flat[0]}. The file is damaged; download it again."
                    )
                volume = Volume(image, np.eye(4))
                mask = volume.with_data((image > 0).astype(np.uint8)) if shapes else None
                writer.add(name, volume, mask, outcome=int(label), extra={"split": split})
                advance(note=name)
        writer.finish(
            {
                "source": {
                    "layout": "MedMNIST3D",
                    "name": source.stem,
                    "spacing": "unknown; 1 mm is written",
                    "participants": "unknown; each sample counts as one",
                }
            }
        )
    return Cohort.open(out)


def _known_outcome(source: Path) -> str:
    for dataset, outcome_name in OUTCOME_NAMES.items():
        if source.stem.startswith(dataset):
            return outcome_name
    raise InputError(
        f"{source} does not say what its label 1 means. Name the outcome, such as "
        "'--outcome malignant'."
    )


def _shape_name(source: Path) -> str:
    for dataset, name in SHAPE_NAMES.items():
        if source.stem.startswith(dataset):
            return name
    return "shape"


def _of_two_values(images: UInt8[np.ndarray, "n x y z"]) -> bool:
    """0 and one other; a shape of several grey levels is an image."""
    counts = np.bincount(images.ravel(), minlength=256)
    return bool(counts[0] > 0 and (counts[1:] > 0).sum() == 1)


def count_samples(source: Path) -> int:
    """How many samples a MedMNIST file holds; reads the labels alone.

    Raises:
        InputError: not a MedMNIST file.
    """
    return sum(len(_read_array(source, f"{split}_labels")) for split in SPLITS)


def _read_array(source: Path, key: str) -> np.ndarray:
    try:
        # Opened here, because np.load forgets to close a file that is no zip.
        with source.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return file[key]
    except KeyError as error:
        raise InputError(
            f"{source} is not a MedMNIST file: it holds no {key}. It needs images and labels of "
            "train, val and test."
        ) from error
    except (zipfile.BadZipFile, zlib.error, TypeError, ValueError, OSError, EOFError) as error:
        raise InputError(f"{source} cannot be read ({error}). Download it again.") from error


def _read_split(source: Path, split: str) -> Samples:
    images, labels = (_read_array(source, f"{split}_{part}") for part in ("images", "labels"))
    if images.ndim != 4 or images.dtype != np.uint8:
        raise InputError(
            f"{source}: {split}_images is {images.dtype} of shape {images.shape}, not uint8 of "
            "(n, x, y, z). Only the 3D files of MedMNIST can be imported."
        )
    if labels.shape not in ((len(images), 1), (len(images),)):
        raise InputError(
            f"{source}: {split}_labels has shape {labels.shape} for {len(images)} images. "
            "Only files with one label per sample can be imported."
        )
    return images, labels.reshape(-1).astype(np.int64)


def _require_binary(source: Path, labels: Int[np.ndarray, " n"]) -> None:
    values = np.unique(labels).tolist()
    if not set(values) <= {0, 1}:
        raise InputError(
            f"{source}: the labels are {values[0]} to {values[-1]}, {len(values)} classes. "
            "An outcome is 0 or 1; choose a binary data set or recode the labels."
        )
