"""What several tests need: the real data, small cohorts and DICOM series on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.volume import Volume
from neonet3d.types import LabelSchema

LIVER_SCHEMA = LabelSchema(("background", "liver", "tumour"))


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Path of a real data set; the test is skipped where it does not exist."""

    def find(name: str) -> Path:
        given = os.environ.get("NEONET3D_DATA")
        root = Path(given) if given else Path(__file__).parents[1] / ".." / "shared" / "data"
        path = root.resolve() / name
        if not path.exists():
            pytest.skip(f"no real data at {path}; set NEONET3D_DATA")
        return path

    return find


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., Cohort]:
    """A cohort of noise with a liver and a tumour in every mask."""

    def make(
        outcomes: Sequence[int | None],
        *,
        participants: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        masks: bool = True,
        name: str = "cohort",
    ) -> Cohort:
        rng = np.random.default_rng(7)
        writer = CohortWriter(tmp_path / name, LIVER_SCHEMA, outcome_name="pni", channel="MR")
        for index, outcome in enumerate(outcomes):
            image = Volume(rng.normal(100, 10, (10, 9, 8)).astype(np.float32), np.eye(4))
            mask = np.zeros(image.shape, dtype=np.uint8)
            mask[1:9, 1:8, 1:7] = 1
            mask[3:6, 3:6, 3:6] = 2
            writer.add(
                f"case_{index:03d}",
                image,
                image.with_data(mask) if masks else None,
                outcome=outcome,
                participant=participants[index] if participants else None,
                extra={"split": splits[index]} if splits else None,
            )
        return writer.finish()

    return make


AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SHAPE = (6, 5, 7)  # slices, rows, columns
MakeSeries = Callable[..., "Written"]


@dataclass(frozen=True)
class Written:
    """A series on disk: its files from the first slice to the last, and what they hold."""

    folder: Path
    files: list[Path]
    stored: np.ndarray  # slice, row, column
    datasets: list[Dataset]

    def rewrite(self, index: int, **changes: Any) -> None:
        """Change attributes of a slice's file."""
        for keyword, value in changes.items():
            setattr(self.datasets[index], keyword, value)
        self.datasets[index].save_as(self.files[index], enforce_file_format=True)


def slice_dataset(stored: np.ndarray, attributes: Mapping[str, Any]) -> Dataset:
    """One MR slice with the least that a scanner writes."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Modality = "MR"
    dataset.PatientName = "Doe^Jane"
    dataset.PatientBirthDate = "19500101"
    dataset.PatientSex = "F"
    dataset.StudyDate = "20200202"
    dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.ReferringPhysicianName = ""
    dataset.InstanceNumber, dataset.SliceThickness = 1, 3
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.PixelData = stored.astype("<u2").tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture
def make_series(tmp_path: Path) -> MakeSeries:
    """Write a series; every file has a name that says nothing, in shuffled order."""
    rng = np.random.default_rng(5)

    def make(
        folder: str = "dicom",
        *,
        patient: str = "P-1",
        description: str = "T1 HBP",
        orientation: Sequence[float] = AXIAL,
        spacing: tuple[float, float] = (0.9, 0.8),
        step: Sequence[float] | None = None,
        origin: Sequence[float] = (-20.0, 30.0, -40.0),
        n: int = SHAPE[0],
        size: tuple[int, int] = SHAPE[1:],
        syntax: str | None = None,
        per_slice: Callable[[int], Mapping[str, Any]] = lambda k: {},
        **attributes: Any,
    ) -> Written:
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        stored = rng.integers(0, 900, (n, *size))
        normal = np.cross(orientation[:3], orientation[3:])
        along = normal * 3.0 if step is None else np.array(step)
        common = {
            "PatientID": patient,
            "StudyInstanceUID": generate_uid(entropy_srcs=[patient]),
            "SeriesInstanceUID": generate_uid(),
            "FrameOfReferenceUID": generate_uid(entropy_srcs=[patient, "frame"]),
            "SeriesDescription": description,
            "SeriesNumber": 5,
            "ImageOrientationPatient": list(orientation),
            "PixelSpacing": list(spacing),
        } | attributes
        files, datasets = [], []
        for k in range(n):
            place = np.array(origin) + k * along
            own = {
                "ImagePositionPatient": [float(f"{v:.8g}") for v in place],
                "InstanceNumber": k + 1,
            }
            dataset = slice_dataset(stored[k], common | own | dict(per_slice(k)))
            if syntax is not None:
                dataset.compress(UID(syntax))
            path = target / f"{rng.integers(1 << 62):x}"
            dataset.save_as(path, enforce_file_format=True)
            files.append(path)
            datasets.append(dataset)
        return Written(target, files, stored, datasets)

    return make
