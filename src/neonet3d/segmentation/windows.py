"""Sliding windows over a part of a scan, with memory for one slab of windows and not for the scan.

The first axis is walked once. What the windows of one position said is blended with Gaussian
weights in a slab one window thick; planes that no later window reaches become class probabilities,
go to the scan's own grid, and make room for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.cohort.geometry import Window, interpolation_matrix, is_identity
from neonet3d.cohort.volume import Volume
from neonet3d.engine.device import fabric
from neonet3d.segmentation.tiling import Box, Layout, sub_window
from neonet3d.types import ImageArray, Shape

SIGMA = 0.125  # of the Gaussian weights, in windows, as MONAI has it
LEAST_WEIGHT = 1e-3
WINDOWS_AT_ONCE = 4  # on a GPU; on a CPU one by one is faster, and needs less memory
PLANES_AT_ONCE = 16  # brought to the scan's grid together

ReadPiece = Callable[[Window], ImageArray]


@dataclass(frozen=True)
class Slab:
    """Class probabilities (k, n, y, z) of a box of the scan's own grid."""

    box: Box
    probability: Float[Tensor, "k n y z"]


@torch.inference_mode()
def scan_slabs(network: nn.Module, layout: Layout, scan: Volume, read: ReadPiece) -> Iterator[Slab]:
    """Class probabilities on the scan's own grid, slab by slab; no slab where all is background.

    Args:
        network: (b, 1, x, y, z) -> (b, k, x, y, z) logits.
        scan: only its grid is looked at.
        read: the normalised scan through a window.
    """
    region = sub_window(layout.window, layout.region)
    matrices, box = [], []
    for axis in range(3):
        full = interpolation_matrix(
            region.grid.shape[axis],
            scan.shape[axis],
            spacing_in_mm=region.grid.spacing_mm[axis],
            spacing_out_mm=scan.spacing_mm[axis],
            first_mm=-region.first_mm[axis],
        )
        inside = np.flatnonzero(full.any(axis=1))
        if not len(inside):
            return  # a region thinner than the scan's voxels, between two of their centres
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
        matrices.append(full[box[-1]])
    of_x, of_y, of_z = matrices
    filled = of_x != 0
    begins = filled.argmax(axis=1).tolist()
    ends = (of_x.shape[1] - filled[:, ::-1].argmax(axis=1)).tolist()
    done, held, held_first = 0, None, 0
    for planes in _network_slabs(network, layout, read):
        for part in planes.split(PLANES_AT_ONCE, dim=1):
            part = _along(part, of_z, -1)
            part = _along(part, of_y, -2)
            held = part if held is None else torch.cat((held, part), dim=1)
            stop = held_first + held.shape[1]
            ready = done
            while ready < len(ends) and ends[ready] <= stop:
                ready += 1
            if ready > done:
                weights = of_x[done:ready, held_first:stop]
                place = slice(box[0].start + done, box[0].start + ready)
                yield Slab((place, box[1], box[2]), _along(held, weights, 1))
            done = ready
            keep = min(begins[done], stop) if done < len(begins) else stop
            held, held_first = held[:, keep - held_first :], keep


def _network_slabs(
    network: nn.Module, layout: Layout, read: ReadPiece
) -> Iterator[Float[Tensor, "k n y z"]]:
    """Class probabilities of the region on the network's grid, in order along x, without gaps."""
    here, (px, py, pz) = fabric(), layout.patch
    across = layout.region[1:]
    size = [part.stop - part.start for part in across]
    weights = here.to_device(gaussian_weights(layout.patch))
    walked, end = layout.region[0].start, layout.region[0].stop
    rows = [(x, list(starts)) for x, starts in groupby(layout.starts, key=lambda start: start[0])]
    logits, total = None, weights.new_zeros(px, *size)
    for row, (x, starts) in enumerate(rows):
        if logits is not None:
            _roll(logits, total, x - rows[row - 1][0])
        for few, said in _answers(network, layout, read, starts):
            if logits is None:
                logits = weights.new_zeros(said.shape[1], px, *size)
            for start, one in zip(few, said, strict=True):
                (into_y, of_y), (into_z, of_z) = (
                    _overlap(part, first, length)
                    for part, first, length in zip(across, start[1:], (py, pz), strict=True)
                )
                weight = weights[:, of_y, of_z]
                logits[:, :, into_y, into_z].addcmul_(one[:, :, of_y, of_z].float(), weight)
                total[:, into_y, into_z] += weight
            del said, one  # before the next window needs room
        assert logits is not None  # a row has a window
        following = rows[row + 1][0] if row + 1 < len(rows) else end
        low, high = max(x, walked), min(following, x + px, end)
        if low > walked:
            yield _background(logits, low - walked)
        if high > low:
            yield _probability(logits[:, low - x : high - x], total[low - x : high - x])
        walked = max(walked, low, high)
    if logits is not None and walked < end:
        yield _background(logits, end - walked)


def _answers(
    network: nn.Module, layout: Layout, read: ReadPiece, starts: list[Shape]
) -> Iterator[tuple[list[Shape], Float[Tensor, "b k x y z"]]]:
    """Logits of the windows of one position along x, in batches; the scan is read once for all."""
    here, (px, py, pz), x = fabric(), layout.patch, starts[0][0]
    (y0, y1), (z0, z1) = ((min(of), max(of)) for of in list(zip(*starts, strict=True))[1:])
    piece = (slice(x, x + px), slice(y0, y1 + py), slice(z0, z1 + pz))
    values = here.to_device(torch.from_numpy(read(sub_window(layout.window, piece))))
    for first in range(0, len(starts), windows_at_once()):
        few = starts[first : first + windows_at_once()]
        batch = [values[:, y - y0 : y - y0 + py, z - z0 : z - z0 + pz] for _, y, z in few]
        with here.autocast():
            said = network(torch.stack(batch)[:, None])
        yield few, said


def windows_at_once() -> int:
    """Size of a batch of windows on this device."""
    return 1 if fabric().device.type == "cpu" else WINDOWS_AT_ONCE


def gaussian_weights(patch: Shape) -> Float[Tensor, "x y z"]:
    """Weight of each voxel of a window: greatest in its middle, never under ``LEAST_WEIGHT``."""
    weights = torch.ones(())
    for n in patch:
        position = torch.arange(n) - (n - 1) / 2
        weights = weights[..., None] * torch.exp(-0.5 * (position / (SIGMA * n)) ** 2)
    return weights.clamp_min(LEAST_WEIGHT)


def _probability(logits: Tensor, total: Tensor) -> Tensor:
    """Softmax of the blended logits; what no window covered is background."""
    probability = (logits / total.clamp_min(LEAST_WEIGHT / 2)).softmax(0)
    bare = total == 0
    if bare.any():
        probability[:, bare] = 0
        probability[0, bare] = 1
    return probability


def _background(like: Tensor, n: int) -> Tensor:
    """Planes (k, n, y, z) of which no window holds a part."""
    planes = like.new_zeros(like.shape[0], n, *like.shape[2:])
    planes[0] = 1
    return planes


def _roll(logits: Tensor, total: Tensor, by: int) -> None:
    """Move the slab ``by`` planes on; empty planes come in behind."""
    kept = max(0, total.shape[0] - by)
    for array, axis in ((logits, 1), (total, 0)):
        if kept:
            array.narrow(axis, 0, kept).copy_(array.narrow(axis, by, kept).clone())
        array.narrow(axis, kept, array.shape[axis] - kept).zero_()


def _along(planes: Tensor, matrix: Float[np.ndarray, "out in"], axis: int) -> Tensor:
    """A matrix along one axis of (k, x, y, z)."""
    if is_identity(matrix):
        return planes
    weights = torch.from_numpy(np.ascontiguousarray(matrix)).to(planes.device)
    if axis == -1:
        return planes @ weights.T
    if axis == -2:
        return weights @ planes
    return (weights @ planes.flatten(2)).unflatten(2, planes.shape[2:])


def _overlap(part: slice, first: int, length: int) -> tuple[slice, slice]:
    """Where a window lies in a part of an axis, and what of the window that is."""
    low, high = max(part.start, first), max(part.start, first, min(part.stop, first + length))
    return slice(low - part.start, high - part.start), slice(low - first, high - first)
