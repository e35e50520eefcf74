"""The job of the page *Predict*: from an uploaded scan to a probability and what speaks for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from nibabel.affines import apply_affine
from scipy import ndimage

from neonet3d.app.models import FoldModels, load_classifier, load_generator, load_segmenter
from neonet3d.app.uploads import unpack
from neonet3d.app.worker import Say
from neonet3d.classification.explain import explain
from neonet3d.classification.predict import Classifier
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.importers import import_cohort
from neonet3d.cohort.patches import load_patches, patch_window
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.generation.counterfactual import draw_counterfactuals
from neonet3d.report.pictures import Labelled
from neonet3d.report.viewer import in_steps
from neonet3d.segmentation.crop_record import CropRecord, read_record
from neonet3d.segmentation.predict import kept_for_cropping, lesion_probability, predict_cases
from neonet3d.segmentation.tlcr import crop_cohort

SCAN, MASK, ROI = "scan.nii.gz", "mask.nii.gz", "roi.nii.gz"
STRONGEST = 100.0  # of a map's values in its file; the largest of the patch


@dataclass(frozen=True)
class ReadScan:
    """Segment, crop, classify and explain one scan.

    Attributes:
        upload: as it came from the browser.
        name: of the file, for errors.
    """

    models: FoldModels
    upload: Path
    name: str

    def run(self, folder: Path, say: Say) -> dict[str, object]:
        """Files: the scan, NeoSeg's mask and the region on its grid, and maps on the patch's."""
        with tempfile.TemporaryDirectory(dir=folder) as scratch:  # goes with all copies of the scan
            return self._run(folder, Path(scratch), say)

    def _run(self, folder: Path, scratch: Path, say: Say) -> dict[str, object]:
        say("reading the scan")
        cohort = self._import(scratch)
        say("segmenting")
        found, volumes_ml = self._segment(cohort, folder, scratch)
        say("cropping")
        crops, record = self._crop(found, folder, scratch)
        patch = crops.cases[0].read_image()
        centre_mm = apply_affine(patch.affine, (np.array(record.shape) - 1) / 2)
        result: dict[str, object] = {
            "name": self.name,
            "volumes_ml": volumes_ml,
            "lesions": record.n_lesions,
            "centre_mm": centre_mm.tolist(),
        }
        if not record.n_lesions:
            return result | {"prediction": None, "maps": []}
        say("classifying")
        classifier = load_classifier(self.models.classifier)
        result["prediction"] = _predicted(classifier, crops)
        maps = []
        for name, values in self._maps(classifier, crops, say):
            _on_patch(values, crops, classifier).write(folder / f"{name}.nii.gz", durable=False)
            maps.append(name)
        return result | {"maps": maps}

    def _segment(
        self, cohort: Cohort, folder: Path, scratch: Path
    ) -> tuple[Cohort, dict[str, float]]:
        """The cohort with NeoSeg's mask, and millilitres of each class; scan and mask written."""
        segmenter = load_segmenter(self.models.segmenter)
        schema = segmenter.card.schema_
        masks = predict_cases(segmenter, cohort, scratch / "masks", kept_for_cropping(segmenter))
        found = cohort.with_overlaid_masks(masks, schema)
        scan, label_map = found.cases[0].read_with_mask()
        label_map.write(folder / MASK, durable=False, schema=schema)
        in_steps(Labelled(scan, label_map), schema).write(folder / SCAN, durable=False)
        return found, {
            name: round(float((label_map.data == value).sum()) * scan.voxel_volume_mm3 / 1000, 2)
            for name, value in schema.as_mapping().items()
            if value
        }

    def _crop(self, found: Cohort, folder: Path, scratch: Path) -> tuple[Cohort, CropRecord]:
        """The patch and where it was; the outline of its region written."""
        crops = crop_cohort(
            found,
            scratch / "crops",
            self.models.roi,
            tumour_probability=lesion_probability(scratch / "masks"),
            allow_empty=True,
        )
        record = read_record(crops.root, found.cases[0].name)
        assert record is not None  # crop_cohort has just written it
        _outline(record).write(folder / ROI, durable=False)
        return crops, record

    def _import(self, scratch: Path) -> Cohort:
        """The upload, which is removed, as a cohort of one case.

        Raises:
            InputError: what cannot be read, in words that do not name our folders; several scans.
        """
        unpacked = scratch / "upload"
        unpacked.mkdir()
        try:
            cohort = import_cohort(unpack(self.upload, unpacked), scratch / "cohort")
        except InputError as error:
            sentence = str(error)
            for path in sorted(unpacked.rglob("*"), key=lambda one: -len(str(one))):
                sentence = sentence.replace(str(path), self.name)
            if "--series" in sentence:
                sentence = f"{self.name} holds several series. Zip the files of one of them."
            raise InputError(sentence.replace(str(unpacked), self.name)) from error
        finally:
            self.upload.unlink(missing_ok=True)
        if len(cohort) != 1:
            raise InputError(f"{self.name} holds {len(cohort)} scans. Send one at a time.")
        return cohort

    def _maps(
        self, classifier: Classifier, crops: Cohort, say: Say
    ) -> Iterator[tuple[str, Float[np.ndarray, "x y z"]]]:
        say("explaining")
        found = explain(classifier, load_patches(crops, *classifier.card.reading))
        yield "attention", found.attention[0].numpy()
        yield "occlusion", found.occlusion[0].numpy()
        say("drawing the counterfactual")
        generator = load_generator(self.models.generator)
        patches = load_patches(crops, *generator.card.reading)
        drawn = draw_counterfactuals(generator, patches, steps=self.models.sampler.steps)
        yield "counterfactual", drawn.difference[0].numpy()


def _predicted(classifier: Classifier, crops: Cohort) -> dict[str, object]:
    found = classifier.assess(crops)
    return {
        "outcome": classifier.card.outcome,
        "probability": round(float(found.probability[0]), 4),
        "low": round(float(found.low[0]), 4),
        "high": round(float(found.high[0]), 4),
        "may_be": [value for value in (0, 1) if found.may_be[0][value]],
        "familiarity": round(float(found.familiarity[0]), 4),
        "unfamiliar": bool(found.unfamiliar[0]),
        "prevalence": round(classifier.prevalence, 4),
        "training_cases": len(classifier.card.training_cases),
    }


def _outline(record: CropRecord) -> Volume:
    """The edge of the region of interest on the scan's grid, one voxel thick."""
    inside = record.place_back(np.ones(record.shape, dtype=np.uint8))
    core = ndimage.binary_erosion(inside.data, border_value=1)
    return inside.with_data(np.where(core, 0, inside.data).astype(np.uint8))


def _on_patch(values: Float[np.ndarray, "x y z"], crops: Cohort, classifier: Classifier) -> Volume:
    """A map where it lies in the world, as a share of its largest value."""
    case = crops.cases[0]
    patch = case.read_image()
    window = patch_window(patch, classifier.card.grid, name=case.name)
    scaled = STRONGEST * values / (np.abs(values).max() or 1.0)
    return Volume(scaled.astype(np.float32), window.affine(patch), user_axes=patch.user_axes)
