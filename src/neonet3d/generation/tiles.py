"""Volumes of any size through the autoencoder, in overlapping tiles with constant memory.

Every tile is computed with a margin, the halo, and only its core is kept. Where the halo is as wide
as a kept voxel can see, and nothing but convolutions and per-voxel norms is computed, the result is
the whole volume's: there is no seam and nothing is blended. A tile that ends at the volume's border
ends there without a halo, so that zero padding is what it is for the whole.

Sizes are counted in units: voxels of the latent, or blocks of 4x4x4 voxels of the image. The choice
of tiles is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.generation.autoencoder import DOWNSAMPLING, Autoencoder, Encoder
from neonet3d.generation.blocks import ChannelNorm
from neonet3d.types import ImageBatch, LatentBatch, Shape

LARGEST_TILE = 40_000  # units of a tile with its halo, 2.6 million voxels; less is never tiled
PER_VOXEL = (ChannelNorm, nn.SiLU, nn.Identity, nn.Dropout)


@dataclass(frozen=True)
class Span:
    """A stretch of one axis, in units: what is kept, [first, last), and what is computed."""

    first: int
    last: int
    outer_first: int
    outer_last: int

    @property
    def length(self) -> int:
        """With the halo."""
        return self.outer_last - self.outer_first


def reach(path: Iterable[nn.Module], voxel: int) -> int:
    """How far an output voxel sees to either side, in voxels of the image.

    Args:
        path: the modules that the data goes through, in this order.
        voxel: edge of a voxel where the path begins, in voxels of the image.

    Raises:
        ValueError: a module that sees the whole volume, such as a group norm, or one that is not
            known here.
    """
    seen = 0  # walked backwards, in voxels of where the walk has come to
    leaves = [leaf for part in path for leaf in part.modules() if not list(leaf.children())]
    for module in reversed(leaves):
        if isinstance(module, nn.Conv3d):
            axes = zip(
                module.kernel_size, module.stride, module.dilation, _padding(module), strict=True
            )
            wide = max(max(p, d * (k - 1) + 1 - s - p) for k, s, d, p in axes)
            seen = seen * module.stride[0] + wide
        elif isinstance(module, nn.ConvTranspose3d) and module.kernel_size == module.stride:
            seen = math.ceil(seen / module.stride[0])  # of a coarse voxel that is half seen, all
        elif not isinstance(module, PER_VOXEL):
            raise ValueError(
                f"A {type(module).__name__} may see the whole volume, so tiles would differ from "
                "it. Use convolutions and ChannelNorm."
            )
    return seen * voxel


def encoder_halo(encoder: Encoder) -> int:
    """Units that a latent voxel sees beyond itself."""
    return math.ceil(reach(encoder.path(), voxel=2) / DOWNSAMPLING)  # the Haar transform halves


def decoder_halo(autoencoder: Autoencoder) -> int:
    """Units that a block of 4x4x4 image voxels sees beyond its latent voxel."""
    return math.ceil(reach(autoencoder.path(), voxel=DOWNSAMPLING) / DOWNSAMPLING)


def spans(n: int, core: int, halo: int) -> list[Span]:
    """An axis of n units cut into stretches of up to ``core`` units."""
    starts = range(0, n, core)
    return [Span(a, min(a + core, n), max(a - halo, 0), min(a + core + halo, n)) for a in starts]


def choose_core(shape: Shape, halo: int, largest: int = LARGEST_TILE) -> Shape:
    """The core that costs the least among those whose tiles hold up to ``largest`` units.

    The cost is the number of units computed, halos included. A volume that fits is one tile.

    Raises:
        ValueError: a single unit with its halo is more than ``largest``.
    """
    sizes = [sorted({math.ceil(n / parts) for parts in range(1, n + 1)}) for n in shape]
    cut = [
        {core: [span.length for span in spans(n, core, halo)] for core in cores}
        for n, cores in zip(shape, sizes, strict=True)
    ]
    fitting = [
        core
        for core in product(*sizes)
        if math.prod(max(axis[n]) for axis, n in zip(cut, core, strict=True)) <= largest
    ]
    if not fitting:
        raise ValueError(f"No tile with a halo of {halo} holds up to {largest} units.")
    a, b, c = min(
        fitting, key=lambda core: math.prod(sum(a[n]) for a, n in zip(cut, core, strict=True))
    )
    return (a, b, c)


def map_tiles(
    function: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b c x y z"],
    *,
    unit_in: int,
    unit_out: int,
    halo: int,
    core: Shape,
) -> Float[Tensor, "b d u v w"]:
    """``function(x)``, a tile at a time; equal to it where ``halo`` is as wide as it sees.

    Args:
        function: maps volumes of k ``unit_in`` voxels along an axis to k ``unit_out`` voxels.
        unit_in, unit_out: voxels of a unit along each axis, before and after; 4 and 1 encode,
            1 and 4 decode, 1 and 1 keep the size.
        halo: units computed beyond the core where the volume goes on.
        core: units kept of each tile.

    Returns:
        On the device of ``x``; beside it, memory is that of a tile.

    Raises:
        ValueError: a size of ``x`` that is no multiple of ``unit_in``.
    """
    if any(n % unit_in for n in x.shape[2:]):
        raise ValueError(f"Sizes {tuple(x.shape[2:])} are no multiples of {unit_in} voxels.")
    out: Tensor | None = None
    for tile in _tiles(x, unit_in, halo, core):
        i, j, k = (slice(unit_in * s.outer_first, unit_in * s.outer_last) for s in tile)
        y = function(x[:, :, i, j, k])
        if out is None:
            shape = [unit_out * (n // unit_in) for n in x.shape[2:]]
            out = torch.empty(*y.shape[:2], *shape, dtype=y.dtype, device=x.device)
        kept = [[unit_out * (n - s.outer_first) for n in (s.first, s.last)] for s in tile]
        u, v, w = (slice(unit_out * s.first, unit_out * s.last) for s in tile)
        i, j, k = (slice(*ends) for ends in kept)
        out[:, :, u, v, w] = y[:, :, i, j, k]
    assert out is not None  # there is a tile for every size but 0
    return out


def encode_tiled(
    autoencoder: Autoencoder, image: ImageBatch, largest: int = LARGEST_TILE
) -> LatentBatch:
    """``autoencoder.encoder(image)`` for any size; one pass where the batch is small.

    Args:
        image: on any device; tiles go to the autoencoder's and come back.
        largest: units of a pass; a batch of patches is divided first, then a volume.
    """
    halo, run = encoder_halo(autoencoder.encoder), _there_and_back(autoencoder.encoder, autoencoder)
    return _in_passes(run, image, DOWNSAMPLING, 1, halo, largest)


def decode_tiled(
    autoencoder: Autoencoder, latent: LatentBatch, largest: int = LARGEST_TILE
) -> ImageBatch:
    """``autoencoder.decode(latent)`` for any size; arguments as for ``encode_tiled``."""
    halo, run = decoder_halo(autoencoder), _there_and_back(autoencoder.decode, autoencoder)
    return _in_passes(run, latent, 1, DOWNSAMPLING, halo, largest)


def _in_passes(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    unit_in: int,
    unit_out: int,
    halo: int,
    largest: int,
) -> Tensor:
    a, b, c = (n // unit_in for n in x.shape[2:])
    at_once = largest // max(1, a * b * c)
    if at_once >= len(x):
        return function(x)
    core = choose_core((a, b, c), halo, largest) if at_once == 0 else (a, b, c)
    run = partial(map_tiles, function, unit_in=unit_in, unit_out=unit_out, halo=halo, core=core)
    return torch.cat([run(part) for part in x.split(max(1, at_once))])


def _there_and_back(
    function: Callable[[Tensor], Tensor], model: nn.Module
) -> Callable[[Tensor], Tensor]:
    device = next(model.parameters()).device
    return lambda x: function(x.to(device)).to(x.device)


def _tiles(x: Tensor, unit: int, halo: int, core: Shape) -> Iterator[tuple[Span, ...]]:
    return product(*(spans(n // unit, c, halo) for n, c in zip(x.shape[2:], core, strict=True)))


def _padding(module: nn.Conv3d) -> tuple[int, ...]:
    if isinstance(module.padding, str):
        raise ValueError(f"Padding {module.padding!r} is not a number of voxels.")
    return module.padding
