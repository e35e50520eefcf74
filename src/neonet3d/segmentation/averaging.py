"""The mean of several segmenters' class probabilities, slab by slab.

Each hands out slabs of its own thickness over a box of its own; outside it, it says background.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from neonet3d.segmentation.windows import Slab


def average_slabs(streams: Sequence[Iterator[Slab]], n_classes: int) -> Iterator[Slab]:
    """The mean of several streams; where one shows nothing, it says background."""
    heads = [next(stream, None) for stream in streams]
    while any(heads):
        first = min(slab.box[0].start for slab in heads if slab)
        stop = min(
            slab.box[0].stop if slab.box[0].start == first else slab.box[0].start
            for slab in heads
            if slab
        )
        here = [slab for slab in heads if slab and slab.box[0].start == first]
        box = (slice(first, stop), _union(here, 1), _union(here, 2))
        mean = here[0].probability.new_zeros(n_classes, *(part.stop - part.start for part in box))
        mean[0] = 1
        for slab in here:
            place = tuple(
                slice(of.start - whole.start, of.stop - whole.start)
                for of, whole in zip(slab.box[1:], box[1:], strict=True)
            )
            share = mean[:, :, *place]
            share += slab.probability[:, : stop - first] / len(streams)
            share[0] -= 1 / len(streams)
        yield Slab(box, mean)
        heads = [
            slab if slab is None or slab.box[0].start > first else _rest(slab, stop)
            for slab in heads
        ]
        heads = [
            next(stream, None) if slab is None else slab
            for slab, stream in zip(heads, streams, strict=True)
        ]


def _rest(slab: Slab, first: int) -> Slab | None:
    """A slab from one plane on; None where nothing is left."""
    x, y, z = slab.box
    if first >= x.stop:
        return None
    return Slab((slice(first, x.stop), y, z), slab.probability[:, first - x.start :])


def _union(slabs: Sequence[Slab], axis: int) -> slice:
    parts = [slab.box[axis] for slab in slabs]
    return slice(min(part.start for part in parts), max(part.stop for part in parts))
