"""NeoSeg on whole scans: find the foreground, slide windows over it, back onto the scan's grid.

Several segmenters make an ensemble: their class probabilities are averaged on the scan's grid, so
that each may have a grid of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from neonet3d.cohort.cohort import Case
from neonet3d.cohort.geometry import Window, crop_to_window, resample_image
from neonet3d.cohort.nifti import read_nifti
from neonet3d.cohort.volume import Volume, to_canonical, write_atomically
from neonet3d.config import SegmenterPlan
from neonet3d.engine.artefact import ArtefactCard, load_weights, read_card
from neonet3d.engine.device import fabric, one_blas_thread
from neonet3d.engine.progress import console, progress
from neonet3d.errors import InputError
from neonet3d.segmentation.averaging import average_slabs
from neonet3d.segmentation.lesions import LESION_CLASS
from neonet3d.segmentation.localiser import Localiser
from neonet3d.segmentation.networks import SegmentationNetwork
from neonet3d.segmentation.tiling import lay_windows
from neonet3d.segmentation.windows import Slab, scan_slabs
from neonet3d.types import ImageArray, LabelMap

PROBABILITIES = "probabilities"  # folder beside the masks
# What stands beside masks: their classes, how each was searched, how good each is.
TABLES = ("labels.json", "search.json", "metrics.csv", "summary.csv")
FOREGROUND, WHOLE_SCAN, NOTHING_FOUND = "foreground", "whole scan", "nothing found"
PROBABILITY_STEP = 1 / 255  # of a written probability; one byte a voxel


@dataclass(frozen=True)
class Search:
    """How a scan was searched.

    Attributes:
        where: ``FOREGROUND``; ``WHOLE_SCAN`` without a localiser, or where one window holds the
            scan; ``NOTHING_FOUND`` when the localiser found nothing, so that all of it was read.
        windows: how many the network saw.
    """

    where: str
    windows: int


@dataclass(frozen=True)
class Segmentation:
    """A predicted label map and how sure the network was, on the scan's own grid.

    Attributes:
        label_map: uint8 classes.
        probabilities: float32 (x, y, z) of each class that was asked for.
        searches: one for each segmenter.
    """

    label_map: Volume
    probabilities: dict[str, ImageArray]
    searches: tuple[Search, ...]

    @property
    def tumour_probability(self) -> ImageArray | None:
        """None when the schema has no tumour, or it was not asked for."""
        return self.probabilities.get(LESION_CLASS)


class Reader(Protocol):
    """What reads scans: one segmenter or several."""

    @property
    def card(self) -> ArtefactCard: ...

    def segment(self, image: Volume, keep: Sequence[str] | None = None) -> Segmentation: ...


class Segmenter:
    """A trained NeoSeg.

    Example:
        >>> segmenter = Segmenter.load("model")               # doctest: +SKIP
        >>> segmenter.segment(volume).label_map.write(path)   # doctest: +SKIP
    """

    def __init__(
        self, network: nn.Module, card: ArtefactCard, localiser: Localiser | None = None
    ) -> None:
        self.network = network
        self.card = card
        self.localiser = localiser

    @property
    def hashes(self) -> tuple[str, ...]:
        """Of all weights that decide what it predicts."""
        parts = (self,) if self.localiser is None else (self, self.localiser)
        return tuple(part.card.weights_sha256 for part in parts)

    @classmethod
    def load(cls, folder: Path | str) -> Segmenter:
        """
        Raises:
            InputError: no segmenter there, damaged, or without its localiser or with another.
        """
        folder = Path(folder)
        card = read_card(folder, kind="Segmenter")
        network = SegmentationNetwork(plan_of(card), len(card.classes))
        load_weights(folder, network, card)
        fabric().to_device(network)
        return cls(network.eval(), card, Localiser.belonging_to(card, folder))

    def segment(self, image: Volume, keep: Sequence[str] | None = None) -> Segmentation:
        """Segment one scan of any spacing.

        Args:
            keep: classes whose probabilities come back too; the tumour by default, if there is one.
        """
        with one_blas_thread():
            return _segment((self,), image, keep)

    @torch.inference_mode()
    def slabs(self, image: Volume) -> tuple[Search, Iterator[Slab]]:
        """Class probabilities on the scan's grid, from one end of its x axis to the other."""
        normaliser = self.card.normaliser
        assert normaliser is not None  # train_segmenter always sets it
        reference = normaliser.reference_of(image.data, None, name=str(image.source))
        # What fits in one window needs no search; a patch would look strange to the localiser.
        searched = (image.extent_mm > self.card.grid.extent_mm).any()
        localiser = self.localiser if searched else None
        found = None if localiser is None else localiser.find(image, reference)
        layout = lay_windows(image, self.card.grid, found)

        def read(window: Window) -> ImageArray:
            """Interpolate 1 + normalised, so that padding (0) means "no signal" (-1)."""
            part, on_part = crop_to_window(image, window)
            signal = part.with_data(normaliser.scale(part.data, reference) + 1)
            return resample_image(signal, on_part) - 1

        where = FOREGROUND if found else NOTHING_FOUND if localiser else WHOLE_SCAN
        return (
            Search(where, len(layout.starts)),
            scan_slabs(self.network, layout, image, read),
        )


class Ensemble:
    """Segmenters of the same classes, such as those of the folds; probabilities are averaged."""

    def __init__(self, members: Sequence[Segmenter]) -> None:
        """
        Raises:
            InputError: members with different classes.
        """
        for member in members[1:]:
            if member.card.classes != members[0].card.classes:
                raise InputError(
                    f"The members of an ensemble know different classes: "
                    f"{list(members[0].card.classes)} and {list(member.card.classes)}. "
                    "Give segmenters that were trained on the same classes."
                )
        self.members = tuple(members)

    @classmethod
    def load(cls, folders: Iterable[Path | str]) -> Ensemble:
        return cls([Segmenter.load(folder) for folder in folders])

    @property
    def card(self) -> ArtefactCard:
        """Of the first member; the training cases are those of any."""
        seen = {
            name: tuple(sorted({x for m in self.members for x in getattr(m.card, name)}))
            for name in ("training_cases", "training_scans")
        }
        return self.members[0].card.model_copy(update=seen)

    def segment(self, image: Volume, keep: Sequence[str] | None = None) -> Segmentation:
        """As ``Segmenter.segment``."""
        with one_blas_thread():
            return _segment(self.members, image, keep)


def predict_cases(
    segmenter: Reader, cases: Iterable[Case], folder: Path, keep: Sequence[str] = ()
) -> dict[str, Path]:
    """Write ``folder/<case>.nii.gz`` on each case's own grid, and ``labels.json`` with the classes.

    ``search.json`` says of each case how it was searched and in how many windows.

    Args:
        keep: classes whose probabilities are written too, as
            ``folder/probabilities/<case>_<class>.nii.gz``: one byte a voxel, scaled in the header.

    Returns:
        Path of the mask of each case.

    Raises:
        InputError: a mask of such a name stands there, which may have been drawn by hand, or what
            another command wrote of its masks.
    """
    cases = list(cases)
    standing = [case.name for case in cases if (folder / f"{case.name}.nii.gz").exists()]
    if standing:
        raise InputError(
            f"{folder} holds {standing[0]}.nii.gz already ({len(standing)} of {len(cases)} cases). "
            "Masks are never overwritten: choose another folder."
        )
    used = [name for name in TABLES if (folder / name).exists()]
    if used:
        raise InputError(
            f"{folder} holds the {used[0]} of other masks. Choose another folder, or remove them."
        )
    written, searches = {}, {}
    _write_json(folder / "labels.json", segmenter.card.schema_.as_mapping())
    with progress("segmenting", len(cases)) as advance:
        for case in cases:
            path = folder / f"{case.name}.nii.gz"
            found = segmenter.segment(case.read_image(), keep)
            found.label_map.write(path, schema=segmenter.card.schema_)
            for name, probability in found.probabilities.items():
                stored = np.rint(probability / PROBABILITY_STEP).astype(np.uint8)
                found.label_map.with_data(stored).write(
                    probability_path(folder, case.name, name), scale=PROBABILITY_STEP
                )
            written[case.name] = path
            if any(search.where == NOTHING_FOUND for search in found.searches):
                console.print(f"{case.name}: no foreground was found, so the whole scan was read.")
            searches[case.name] = [
                {"where": search.where, "windows": search.windows} for search in found.searches
            ]
            advance()
    _write_json(folder / "search.json", searches)
    return written


def plan_of(card: ArtefactCard) -> SegmenterPlan:
    """The sizes that a segmenter was built with."""
    return card.part("plan", SegmenterPlan)


def _write_json(path: Path, content: object) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def probability_path(folder: Path, case: str, name: str) -> Path:
    """Where ``predict_cases`` writes the probability of a class."""
    return folder / PROBABILITIES / f"{case}_{name}.nii.gz"


def kept_for_cropping(segmenter: Reader) -> tuple[str, ...]:
    """Classes whose probability TLCR weighs lesions by."""
    return (LESION_CLASS,) if LESION_CLASS in segmenter.card.classes else ()


def lesion_probability(folder: Path) -> Callable[[Case], ImageArray | None]:
    """Of a case, where ``predict_cases(keep=kept_for_cropping(...))`` wrote it; else None."""

    def read(case: Case) -> ImageArray | None:
        if not probability_path(folder, case.name, LESION_CLASS).is_file():
            return None
        return read_probability(folder, case.name, LESION_CLASS)

    return read


def read_probability(folder: Path, case: str, name: str) -> ImageArray:
    """The probability of a class (x, y, z) in RAS+ that ``predict_cases`` wrote; may be all 0."""
    path = probability_path(folder, case, name)
    file = read_nifti(path, path.name)
    return to_canonical(file.data, file.image.affine, dtype=np.float32, source=path).data


@torch.inference_mode()
def _segment(
    members: Sequence[Segmenter], image: Volume, keep: Sequence[str] | None
) -> Segmentation:
    schema = members[0].card.schema_
    if keep is None:
        keep = (LESION_CLASS,) if LESION_CLASS in schema else ()
    # What no slab shows is background.
    label_map = np.zeros(image.shape, dtype=np.uint8)
    kept = {
        name: np.full(image.shape, float(schema.value(name) == 0), dtype=np.float32)
        for name in keep
    }
    searches, streams = zip(*(member.slabs(image) for member in members), strict=True)
    slabs = streams[0] if len(members) == 1 else average_slabs(streams, len(schema))
    for slab in slabs:
        label_map[slab.box] = _largest(slab.probability)
        for name, into in kept.items():
            into[slab.box] = slab.probability[schema.value(name)].float().cpu().numpy()
    return Segmentation(image.with_data(label_map), kept, searches)


def _largest(probability: Tensor) -> LabelMap:
    """Class of the greatest probability; of two equal ones the first, as argmax."""
    best = probability[0].clone()
    winner = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for value in range(1, len(probability)):
        ahead = probability[value] > best
        winner.masked_fill_(ahead, value)
        torch.maximum(best, probability[value], out=best)
    return winner.cpu().numpy()
