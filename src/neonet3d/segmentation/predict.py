"""NeoSeg on whole scans: sliding window, then back onto each case's own grid."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from neonet3d.cohort.cohort import Case
from neonet3d.cohort.geometry import Grid, Window, resample_image
from neonet3d.cohort.volume import Volume, write_atomically
from neonet3d.config import SegmenterPlan
from neonet3d.engine.artefact import ArtefactCard, load_weights, read_card
from neonet3d.engine.device import fabric
from neonet3d.engine.progress import progress
from neonet3d.segmentation.networks import SegmentationNetwork, size_multiple
from neonet3d.types import ImageArray

OVERLAP = 0.25
WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class Segmentation:
    """A predicted label map and how sure the network was, on the scan's own grid.

    Attributes:
        label_map: uint8 classes.
        tumour_probability: float32 (x, y, z), or None when the schema has no tumour.
    """

    label_map: Volume
    tumour_probability: ImageArray | None


class Segmenter:
    """A trained NeoSeg.

    Example:
        >>> segmenter = Segmenter.load("model")               # doctest: +SKIP
        >>> segmenter.segment(volume).label_map.write(path)   # doctest: +SKIP
    """

    def __init__(self, network: nn.Module, card: ArtefactCard) -> None:
        self.network = network
        self.card = card

    @classmethod
    def load(cls, folder: Path | str) -> Segmenter:
        folder = Path(folder)
        card = read_card(folder, kind="Segmenter")
        network = SegmentationNetwork(plan_of(card), len(card.classes))
        load_weights(folder, network, card)
        fabric().to_device(network)
        return cls(network.eval(), card)

    @torch.inference_mode()
    def segment(self, image: Volume) -> Segmentation:
        """Segment one scan of any spacing."""
        here, card = fabric(), self.card
        assert card.normaliser is not None  # train_segmenter always sets it
        spacing = np.array(card.grid.spacing_mm)
        multiple = np.array(size_multiple(plan_of(card)))
        extent = np.array(image.shape) * np.array(image.spacing_mm)
        # Instance norms know patches of the training size: a smaller scan is padded to one.
        voxels = np.ceil(np.round(extent / spacing, 3) / multiple) * multiple
        x, y, z = np.maximum(voxels, card.grid.shape).astype(int).tolist()
        window = Window.centred(image, Grid((x, y, z), card.grid.spacing_mm))
        data = card.normaliser.apply(image.data, None, name=str(image.source))
        values = torch.from_numpy(resample_image(image.with_data(data + 1), window) - 1)
        with here.autocast():
            logits = sliding_window_inference(
                here.to_device(values)[None, None],
                card.grid.shape,
                WINDOWS_AT_ONCE,
                self.network,
                overlap=OVERLAP,
                mode="gaussian",
            )
        probability = logits[0].float().softmax(0).cpu().numpy()
        on_scan = _back(probability, window, image)
        label_map = on_scan.argmax(0).astype(np.uint8)
        tumour = on_scan[card.schema_.value("tumour")] if "tumour" in card.classes else None
        return Segmentation(image.with_data(label_map), tumour)


def predict_cases(segmenter: Segmenter, cases: Iterable[Case], folder: Path) -> dict[str, Path]:
    """Write ``folder/<case>.nii.gz`` on each case's own grid, and ``labels.json`` with the classes.

    Returns:
        Path of the mask of each case.
    """
    cases = list(cases)
    written = {}
    with progress("segmenting", len(cases)) as advance:
        for case in cases:
            path = folder / f"{case.name}.nii.gz"
            found = segmenter.segment(case.read_image()).label_map
            found.write(path, schema=segmenter.card.schema_)
            written[case.name] = path
            advance()
    names = segmenter.card.schema_.as_mapping()
    write_atomically(folder / "labels.json", (json.dumps(names, indent=2) + "\n").encode())
    return written


def _back(probability: np.ndarray, window: Window, scan: Volume) -> np.ndarray:
    """Class probabilities (k, x, y, z) from the network's grid onto the scan's."""
    x, y, z = (-np.array(window.first_mm)).tolist()
    inverse = Window((x, y, z), Grid(scan.shape, scan.spacing_mm))
    affine = window.affine(scan)
    return np.stack([resample_image(Volume(channel, affine), inverse) for channel in probability])


def plan_of(card: ArtefactCard) -> SegmenterPlan:
    """The sizes that a segmenter was built with."""
    return SegmenterPlan.model_validate(card.parts["plan"])
