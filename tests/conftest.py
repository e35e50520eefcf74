"""What several tests need: data, small cohorts and series, commands, a small study, a browser."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from neonet3d.cli import main
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


SCAN_SPACING_MM = (6.0, 6.0, 10.0)
SCAN_SHAPE = (30, 20, 12)
TINY = (
    "roi.shape=[24, 16, 8]",
    "roi.spacing_mm=[6, 6, 10]",
    "segmenter.network=unet",
    "segmenter.localiser_steps=2",
    "segmenter.channels=[8, 16]",
    "segmenter.patch=[24, 16, 8]",
    "segmenter.loop.steps=2",
    "autoencoder.channels=8",
    "autoencoder.latent_channels=4",
    "autoencoder.loop.steps=2",
    "autoencoder.loop.batch_size=2",
    "unet.channels=[16, 16]",
    "unet.loop.steps=2",
    "unet.loop.batch_size=2",
    "controlnet.loop.steps=2",
    "detail.loop.steps=2",
    "detail.channels=8",
    "controlnet.loop.batch_size=2",
    "masks.autoencoder.channels=8",
    "masks.autoencoder.loop.steps=150",
    "masks.autoencoder.loop.batch_size=2",
    "masks.flow.channels=[16, 16]",
    "masks.flow.loop.steps=40",
    "masks.flow.loop.batch_size=2",
    "masks.steps=2",
    "masks.start=1.0",
    "masks.volume_factor=1.0e+9",
    "sampler.steps=2",
    "balance.adherence_quantile=0",
    "balance.attempts=200",
    "classifier.channels=8",
    "classifier.encodings=2",
    "classifier.loop.steps=2",
    "baseline.width=0.25",
    "baseline.loop.steps=2",
    "study.folds=2",
)
OPTIONS = ("--preset", "demo", *(part for override in TINY for part in ("--set", override)))


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, Any]:
        """stdout as JSON, and as nothing else; nan is none."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        assert self.status == 0, self.stderr
        return dict(json.loads(self.stdout, parse_constant=refuse))


Run = Callable[..., Outcome]


def _run(*arguments: object) -> Outcome:
    def leave(status: int) -> None:
        raise SystemExit(status)

    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["neonet3d", *map(str, arguments)]),
        patch.object(os, "_exit", leave),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    status = stopped.value.code
    assert isinstance(status, int)
    return Outcome(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def run() -> Run:
    """Run ``neonet3d`` with these arguments; exit status, stdout and stderr come back."""
    return _run


@pytest.fixture(scope="session")
def tiny_options() -> tuple[str, ...]:
    """A configuration that trains two steps."""
    return OPTIONS


@pytest.fixture(scope="session")
def tiny_scans(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Eight patients that are alike but for noise, every second one positive."""
    axes = [
        (np.arange(n) - (n - 1) / 2) * s for n, s in zip(SCAN_SHAPE, SCAN_SPACING_MM, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    label_map = np.zeros(SCAN_SHAPE, dtype=np.uint8)
    label_map[(x / 80) ** 2 + (y / 55) ** 2 + (z / 50) ** 2 < 1] = 1
    label_map[np.sqrt((x - 10) ** 2 + y**2 + z**2) < 22] = 2
    anatomy = np.array([20, 100, 60])[label_map] + np.random.default_rng(0).normal(0, 8, SCAN_SHAPE)
    root = tmp_path_factory.mktemp("scans") / "scans"
    writer = CohortWriter(root, LIVER_SCHEMA, outcome_name="pni", channel="HBP", durable=False)
    affine = np.diag([*SCAN_SPACING_MM, 1.0])
    for index in range(8):
        noise = np.random.default_rng(1 + index).normal(0, 0.5, SCAN_SHAPE)
        image = np.clip(anatomy + noise, 1, None).astype(np.float32)
        writer.add(
            f"case_{index}", Volume(image, affine), Volume(label_map, affine), outcome=index % 2
        )
    return writer.finish()


@pytest.fixture(scope="session")
def scans(tiny_scans: Cohort) -> Cohort:
    """By the name that a folder of tests may give to a cohort of its own."""
    return tiny_scans


@pytest.fixture(scope="session")
def tiny_study(
    tiny_scans: Cohort, tiny_options: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """A study of two folds, as the command line runs it, and what it said. Not to be changed."""
    out = tmp_path_factory.mktemp("study") / "run"
    return out, _run("study", "pni", tiny_scans.root, out, *tiny_options, "--json")


@pytest.fixture(scope="session")
def importable() -> Iterator[None]:
    """Processes that a test starts get this path, and import the tests' own modules by it."""
    root = str(Path(__file__).parents[1])
    sys.path.append(root)
    yield
    sys.path.remove(root)


CHROMIUM = shutil.which("chromium")
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, without a graphics card."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield chromium
        chromium.close()
