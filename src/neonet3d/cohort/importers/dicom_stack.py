"""How the slices of a series lie on each other: their order and their affine, or why there is none.

Everything follows from ImagePositionPatient and ImageOrientationPatient (DICOM PS3.3, C.7.6.2):
slices are ordered along the normal of their plane, and the step between them is measured and not
read from SliceThickness. An affine is never invented: a series whose slices do not make one regular
block is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from neonet3d.cohort.importers.dicom_frames import PHASE_KEYWORDS, Frame
from neonet3d.cohort.importers.dicom_headers import Series
from neonet3d.cohort.nifti import SHEAR_TOLERANCE
from neonet3d.errors import InputError
from neonet3d.types import Affine

FEWEST_SLICES = 4  # fewer are a localiser
SAME_PLACE_MM = 0.01
IRREGULAR = 0.02  # of the step; headers round positions
COSINE_TOLERANCE = 1e-4
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Stack:
    """A series as one block.

    Attributes:
        frames: from the first slice to the last along the normal.
        affine: 4x4, (column, row, slice) to world coordinates in mm, RAS+.
    """

    frames: tuple[Frame, ...]
    affine: Affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between columns, rows and slices."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return (x, y, z)


def stack_series(series: Series) -> Stack:
    """Order the slices of a series.

    Raises:
        InputError: why they do not make one regular block, and what to do; the sentence does not
            name the series, which the caller knows.
    """
    frames = series.frames
    for frame in frames:
        if frame.problem is not None:
            raise InputError(f"{frame.problem}.")
    _require_placed(frames)
    _require_one_plane(frames)
    if len(frames) < FEWEST_SLICES:
        raise InputError(
            f"{len(frames)} slices are a localiser or a part, not a volume "
            f"({FEWEST_SLICES} are needed). Choose another series."
        )
    orientation = np.array(frames[0].orientation).reshape(2, 3)
    orientation /= np.linalg.norm(orientation, axis=1, keepdims=True)  # headers round cosines
    normal = np.cross(orientation[0], orientation[1])
    positions = np.array([frame.position_mm for frame in frames])
    order = np.argsort(positions @ normal, kind="stable")
    frames = tuple(frames[i] for i in order)
    positions = positions[order]
    _require_one_image_per_place(frames, positions @ normal)
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    _require_regular(positions, normal)
    _require_straight(positions, step, normal)
    _require_decoder(frames)
    rows_mm, columns_mm = frames[0].spacing_mm or (0.0, 0.0)
    affine = np.eye(4)
    affine[:3, 0] = orientation[0] * columns_mm
    affine[:3, 1] = orientation[1] * rows_mm
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return Stack(frames, LPS_TO_RAS @ affine)


def _require_placed(frames: tuple[Frame, ...]) -> None:
    for frame in frames:
        lacking = [
            keyword
            for keyword, value in (
                ("ImagePositionPatient", frame.position_mm),
                ("ImageOrientationPatient", frame.orientation),
                ("PixelSpacing", frame.spacing_mm),
            )
            if value is None
        ]
        if lacking:
            raise InputError(
                f"{' and '.join(lacking)} missing, so nothing says where the images lie. "
                "Export the original series."
            )
        numbers = [
            *(frame.position_mm or ()),
            *(frame.orientation or ()),
            *(frame.spacing_mm or ()),
        ]
        if not np.all(np.isfinite(numbers)) or min(frame.spacing_mm or (0,)) <= 0:
            raise InputError(
                f"PixelSpacing {frame.spacing_mm} or a position is not usable. "
                "Export the original series."
            )
        axes = np.array(frame.orientation).reshape(2, 3)
        if np.abs(axes @ axes.T - np.eye(2)).max() > SHEAR_TOLERANCE:
            raise InputError(
                "ImageOrientationPatient is not two directions at right angles. "
                "Export the original series."
            )


def _require_one_plane(frames: tuple[Frame, ...]) -> None:
    for what, differing in (
        ("sizes", len({frame.size for frame in frames})),
        ("pixel spacings", _distinct(np.array([f.spacing_mm for f in frames]), 1e-4)),
        ("orientations", _distinct(np.array([f.orientation for f in frames]), COSINE_TOLERANCE)),
    ):
        if differing > 1:
            raise InputError(
                f"{len(frames)} images of {differing} {what}: a localiser, or several series in "
                "one. Choose another series, or export them apart."
            )


def _distinct(values: np.ndarray, tolerance: float) -> int:
    """How many of the rows differ by more than the tolerance."""
    found: list[np.ndarray] = []
    for row in values:
        if not any(np.abs(row - other).max() <= tolerance for other in found):
            found.append(row)
    return len(found)


def _require_one_image_per_place(frames: tuple[Frame, ...], heights: np.ndarray) -> None:
    place = np.concatenate([[0], np.cumsum(np.diff(heights) > SAME_PLACE_MM)])
    images = Counter(place.tolist())
    if len(images) == len(frames):
        return
    counts = sorted(set(images.values()))
    if len(counts) > 1:
        repeated = sum(n > 1 for n in images.values())
        raise InputError(
            f"{len(frames)} images at {len(images)} positions; {repeated} positions hold several "
            f"({counts[-1]} at most): duplicates, or a second phase that is not whole. "
            "Remove the copies, or export the phases apart."
        )
    told = _what_differs(frames, place, counts[0])
    raise InputError(
        f"{counts[0]} images at each of {len(images)} positions: {told}. "
        "A case holds one image; export the phases as series of their own."
    )


def _what_differs(frames: tuple[Frame, ...], place: np.ndarray, n: int) -> str:
    """The attribute that tells the images at each place apart, with its values."""
    for keyword in PHASE_KEYWORDS:
        per_place: dict[int, set[str]] = {}
        for frame, where in zip(frames, place.tolist(), strict=True):
            per_place.setdefault(where, set()).add(frame.phase.get(keyword, ""))
        if all(len(values) == n for values in per_place.values()):
            values = sorted({v for found in per_place.values() for v in found})
            listed = f" ({', '.join(values)})" if len(values) == n else ""
            return f"several phases that differ in {keyword}{listed}"
    return "several phases, or the series was copied twice"


def _require_regular(positions: np.ndarray, normal: np.ndarray) -> None:
    steps = np.diff(positions @ normal)
    usual = float(np.median(steps))
    gaps = np.flatnonzero(steps > 1.5 * usual)
    if len(gaps):
        missing = int(sum(round(step / usual) - 1 for step in steps[gaps]))
        raise InputError(
            f"{missing} slices are missing: {steps[gaps[0]]:.4g} mm lie between slices "
            f"{gaps[0] + 1} and {gaps[0] + 2} where the step is {usual:.4g} mm. "
            "Export the whole series."
        )
    regular = np.linspace(0, steps.sum(), len(positions))
    off = np.abs(positions @ normal - positions[0] @ normal - regular).max()
    if off > IRREGULAR * usual + SAME_PLACE_MM / 2:
        raise InputError(
            f"the slices are {steps.min():.4g} to {steps.max():.4g} mm apart, which is not "
            "regular. Export the original series, or resample it to a regular grid."
        )


def _require_straight(positions: np.ndarray, step: np.ndarray, normal: np.ndarray) -> None:
    sine = float(np.linalg.norm(np.cross(step, normal)) / np.linalg.norm(step))
    if sine > SHEAR_TOLERANCE:
        raise InputError(
            f"the stack leans by {np.degrees(np.arcsin(min(sine, 1.0))):.3g} degrees against its "
            "slices (gantry tilt). Resample the series to an orthogonal grid first."
        )
    line = positions[0] + np.arange(len(positions))[:, None] * step
    aside = positions - line
    aside -= np.outer(aside @ normal, normal)
    off = float(np.linalg.norm(aside, axis=1).max())
    if off > IRREGULAR * float(np.linalg.norm(step)) + SAME_PLACE_MM / 2:
        raise InputError(
            f"a slice lies {off:.3g} mm beside the line through the others. "
            "Export the original series."
        )


def _require_decoder(frames: tuple[Frame, ...]) -> None:
    for syntax in sorted({frame.transfer_syntax for frame in frames}):
        named = f"transfer syntax {syntax or '(none)'}"
        if syntax and UID(syntax).name != syntax:
            named += f" ({UID(syntax).name})"
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError as error:
            raise InputError(
                f"{named} cannot be decoded by any package that pydicom knows. "
                "Export the series uncompressed or as JPEG 2000."
            ) from error
        if not decoder.is_available:
            lacking = "; ".join(decoder.missing_dependencies)
            raise InputError(
                f"{named} has no decoder here; one of these is missing: {lacking}. "
                "Install it, or export the series uncompressed."
            )
