"""One large training on several processes that ``torchrun`` started (data parallel, DDP).

Every process does the whole command on the same cohort with the same seeds, so all come to the same
step with the same weights; in a step each draws the same batch, takes its own part of it, and the
gradients are averaged. Files count from the first process alone: the others work in a scratch
folder, which begins as a copy of the first one's, so that an interrupted training goes on.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from neonet3d.engine.device import fabric, world_size
from neonet3d.engine.progress import console
from neonet3d.errors import InputError


@contextmanager
def own_folder(out: Path) -> Iterator[Path]:
    """``out`` in the first process; elsewhere a scratch folder that goes afterwards."""
    here = fabric()
    if here.world_size == 1 or here.global_rank == 0:
        here.barrier()  # the others copy before the first one writes
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="neonet3d-rank-") as scratch:
        own = Path(scratch) / out.name
        if out.is_dir():
            shutil.copytree(out, own)
        here.barrier()
        yield own


def part_of_batch(batch: Sequence[Tensor]) -> list[Tensor]:
    """This process's share of a batch, along the first axis of every tensor.

    Raises:
        InputError: the batch does not divide evenly.
    """
    n, rank = world_size(), fabric().global_rank
    if n == 1:
        return list(batch)
    sizes = {len(part) for part in batch}
    size = sizes.pop()
    if sizes or size % n:
        raise InputError(
            f"A batch of {size} cannot be shared evenly by {n} processes. Choose a batch_size that "
            f"is a multiple of {n}, or start fewer processes."
        )
    share = size // n
    return [part[rank * share : (rank + 1) * share] for part in batch]


def speak_once() -> None:
    """Let only the first of several processes print."""
    if int(os.environ.get("RANK", "0")) > 0:
        console.quiet = True
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 as long as the process lives


def mean_over_processes(value: Tensor) -> float:
    """Of one number that every process has."""
    reduced = fabric().all_reduce(value, reduce_op="mean")
    assert isinstance(reduced, Tensor)
    return float(reduced)


def require_one_process(shared: frozenset[tuple[str, ...]], command: Sequence[str]) -> None:
    """Refuse several processes for a command that would do everything in each of them.

    Raises:
        InputError: ``torchrun`` started several, and the command is not in ``shared``.
    """
    if world_size() > 1 and tuple(command[:2]) not in shared:
        names = " and ".join(f"'{' '.join(one)}'" for one in sorted(shared))
        raise InputError(
            f"torchrun started {world_size()} processes, and only {names} share a training. Start "
            "the command without torchrun; 'study pni --workers' spreads a study."
        )
