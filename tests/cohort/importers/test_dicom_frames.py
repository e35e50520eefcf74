"""Frames of enhanced multi-frame files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

from neonet3d.cohort.importers.dicom_headers import list_files, read_series
from neonet3d.cohort.importers.dicom_pixels import read_stack
from neonet3d.cohort.importers.dicom_stack import stack_series
from neonet3d.errors import InputError


def item(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(written: Any, *, phases: int = 1, shared_scale: bool = True) -> Path:
    """The slices of a series as one enhanced multi-frame file, in a shuffled order."""
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(written.stored)), phases))
    head = written.datasets[0]
    places = [list(d.ImagePositionPatient) for d in written.datasets]
    scale = [item(RescaleSlope=2, RescaleIntercept=-5)]
    frames, seen = [], dict.fromkeys(range(len(places)), 0)
    for k in order.tolist():
        seen[k] += 1
        groups = item(
            PlanePositionSequence=[item(ImagePositionPatient=places[k])],
            FrameContentSequence=[item(TemporalPositionIndex=seen[k])],
        )
        if not shared_scale:
            groups.PixelValueTransformationSequence = scale
        frames.append(groups)
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=head.ImageOrientationPatient)],
        PixelMeasuresSequence=[item(PixelSpacing=head.PixelSpacing)],
    )
    if shared_scale:
        shared.PixelValueTransformationSequence = scale
    del head.ImagePositionPatient, head.ImageOrientationPatient, head.PixelSpacing
    head.SOPClassUID = head.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    head.NumberOfFrames = len(order)
    head.SharedFunctionalGroupsSequence = [shared]
    head.PerFrameFunctionalGroupsSequence = frames
    head.PixelData = written.stored[order].astype("<u2").tobytes()
    for path in written.files:
        path.unlink()
    head.save_as(written.folder / "enhanced", enforce_file_format=True)
    return Path(written.folder / "enhanced")


@pytest.mark.parametrize("shared_scale", [False, True])
def test_an_enhanced_multi_frame_file_is_read(
    make_series: Callable[..., Any], shared_scale: bool
) -> None:
    written = make_series()
    path = enhanced(written, shared_scale=shared_scale)
    for source in (path, written.folder):
        found, _ = read_series(source, list_files(source))
        volume = read_stack(stack_series(found[0]), name="a")
        assert volume.user_axes == ("L", "P", "S")
        expected = (written.stored * 2.0 - 5).transpose(2, 1, 0)[::-1, ::-1]
        np.testing.assert_array_equal(volume.data, expected)


def test_phases_of_a_multi_frame_file_are_refused(make_series: Callable[..., Any]) -> None:
    written = make_series()
    enhanced(written, phases=3)
    found, _ = read_series(written.folder, list_files(written.folder))
    with pytest.raises(InputError, match=r"3 images at each of 6 .*PositionIndex \(1, 2, 3"):
        stack_series(found[0])


def test_a_frame_without_its_group_is_refused(make_series: Callable[..., Any]) -> None:
    written = make_series()
    enhanced(written)
    head = written.datasets[0]
    head.PerFrameFunctionalGroupsSequence = head.PerFrameFunctionalGroupsSequence[:4]
    head.save_as(written.folder / "enhanced", enforce_file_format=True)
    found, _ = read_series(written.folder, list_files(written.folder))
    with pytest.raises(InputError, match="6 frames but 4 functional groups"):
        stack_series(found[0])
