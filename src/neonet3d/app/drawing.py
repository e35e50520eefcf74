"""The job of the page *Generate*: a volume for a mask that was edited there."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch

from neonet3d.app.edits import EditedMask, edited_mask
from neonet3d.app.models import FoldModels, load_generator
from neonet3d.app.worker import Say
from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import load_patches
from neonet3d.generation.sample import as_volume
from neonet3d.report.pictures import Labelled
from neonet3d.report.viewer import in_steps

IMAGE, MASK, RECORD = "image.nii.gz", "mask.nii.gz", "provenance.json"
PAIR = "synthetic-pair.zip"


@dataclass(frozen=True)
class DrawVolume:
    """Draw one volume.

    Attributes:
        crops: cohort of the masks that the page offers.
        outcome: 0, 1, or -1 for "not said".
    """

    models: FoldModels
    crops: Path
    mask: EditedMask
    outcome: int
    seed: int

    def run(self, folder: Path, say: Say) -> dict[str, object]:
        """The pair with its record as a zip; for the page the patient whose mask it was, too."""
        say("loading the generator")
        generator = load_generator(self.models.generator)
        say("editing the mask")
        crops = Cohort.open(self.crops)
        source = edited_mask(crops, generator.card, self.mask)
        say("drawing the volume")
        images = generator.sample(
            torch.from_numpy(source.label_map)[None],
            torch.tensor([self.outcome]),
            **self.models.sampler.model_dump(),
            seed=self.seed,
            log_scale=source.log_scale[None],
        )
        say("writing it")
        image = as_volume(generator, images[0].numpy(), source.log_scale)
        mask = as_volume(generator, source.label_map, source.log_scale)
        image.write(folder / IMAGE, durable=False)
        mask.write(folder / MASK, durable=False, schema=generator.card.schema_)
        patient = load_patches(crops.subset([crops[source.name]]), *generator.card.reading)
        own = as_volume(generator, patient.required_label_maps()[0].numpy(), source.log_scale)
        real = as_volume(generator, patient.images[0].numpy(), source.log_scale)
        for name, one in (("synthetic", Labelled(image, mask)), ("real", Labelled(real, own))):
            shown = in_steps(one, generator.card.schema_)
            shown.write(folder / f"{name}.nii.gz", durable=False)
        own.write(folder / "real-mask.nii.gz", durable=False)
        record = {
            "synthetic": True,
            "source_mask": source.source[:16],
            "edits": [edit.model_dump() for edit in self.mask.edits],
            "outcome": None if self.outcome < 0 else {generator.card.outcome: self.outcome},
            "generator": generator.card.weights_sha256[:16],
            "fold": generator.card.fold,
            "draw_seed": self.seed,
        }
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        with zipfile.ZipFile(folder / PAIR, "w") as pair:
            for name in (IMAGE, MASK, RECORD):
                pair.write(folder / name, name)
        trained_on_it = generator.card.saw(crops[source.name])
        return {"pair": PAIR, "trained_on_the_mask": trained_on_it, **record}
