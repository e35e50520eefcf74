"""Two processes that share a training: what one alone would have done, and who writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neonet3d.cohort.cohort import Cohort
from neonet3d.engine import ranks
from neonet3d.engine.artefact import read_card
from neonet3d.engine.ranks import part_of_batch, require_one_process
from neonet3d.errors import InputError

COMMAND = """
from neonet3d.cli import main
main()
"""
LOOP = """
import sys
from pathlib import Path
import torch
from torch import nn
from neonet3d.config import LoopConfig
from neonet3d.engine import device
device.best_precision = lambda: "32-true"  # bf16 has too few digits for sums in another order
from neonet3d.engine.loop import seeded, train_loop
from neonet3d.engine.ranks import own_folder

class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.SiLU(),
            nn.Conv3d(8, 1, 3, padding=1),
        )

    def forward(self, x, y):
        return (self.network(x) - y).square().mean()

data = torch.randn(16, 1, 8, 8, 4, generator=torch.Generator().manual_seed(0))
wanted = data.flip(2) * 0.5 + data

def draw(generator):
    rows = torch.randint(16, (4,), generator=generator)
    return [data[rows], wanted[rows]]

config = LoopConfig(steps=40, batch_size=4, learning_rate=0.01, weight_decay=0.01, ema_decay=0.9)
with own_folder(Path(sys.argv[1])) as folder:
    train_loop(seeded(0, Objective), draw, config, folder=folder, seed=0, description="test")
"""


def started(tmp_path: Path, n: int, program: str, *arguments: object) -> Any:
    """A program in ``n`` processes of one thread."""
    path = tmp_path / "program.py"
    path.write_text(program)
    alone = [sys.executable]
    shared = [*alone, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    return subprocess.run(
        [*(shared if n > 1 else alone), str(path), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    found = {}
    for n in (1, 2):
        done = started(tmp_path, n, LOOP, tmp_path / f"of-{n}")
        assert done.returncode == 0, done.stderr
        found[n] = losses(tmp_path / f"of-{n}")
    assert len(found[1]) == 40
    assert found[1][-1] < 0.5 * found[1][0]
    assert found[2] == pytest.approx(found[1], abs=1e-5)


def test_each_process_draws_its_own_noise(tmp_path: Path) -> None:
    """Alike in all of them, a batch would hold each noise once for every process."""
    noisy = LOOP.replace(".square().mean()", ".mean() * 0 + torch.rand(())")
    found = {}
    for n in (1, 2):
        done = started(tmp_path, n, noisy, tmp_path / f"of-{n}")
        assert done.returncode == 0, done.stderr
        found[n] = losses(tmp_path / f"of-{n}")
    other = 2 * np.array(found[2]) - np.array(found[1])  # the mean of both less the first one's
    assert ((other > -1e-5) & (other < 1 + 1e-5)).all()
    assert np.abs(other - found[1]).mean() > 0.1


def test_a_segmenter_is_trained_by_two(
    scans: Cohort, tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "segmenter"
    shared = ("--set", "segmenter.loop.batch_size=2")
    arguments = ("segment", "train", scans.root, out, *tiny_options, *shared, "--json")
    done = started(tmp_path, 2, COMMAND, *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == str(out)  # printed by one of them
    card = read_card(out, kind="Segmenter")
    assert "2 processes" in card.device
    # A training that stands is not done again, by two or by one of them.
    before = (out / "model.safetensors").stat().st_mtime_ns
    again = started(tmp_path, 2, COMMAND, *arguments)
    assert again.returncode == 0, again.stderr
    assert (out / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_generator_is_trained_by_two(
    trained_crops: Path, tiny_options: tuple[str, ...], tmp_path: Path
) -> None:
    """Each draws noise of its own, so the curve is another one; the models are whole."""
    out = tmp_path / "generator"
    quick = ("masks.autoencoder.loop.steps=2", "masks.flow.loop.steps=2")
    more = [word for one in quick for word in ("--set", one)]
    done = started(
        tmp_path,
        2,
        COMMAND,
        "generate",
        "train",
        trained_crops,
        out,
        *tiny_options,
        *more,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == str(out)
    assert {path.parent.name for path in out.rglob("model.safetensors")} >= {"unet", "controlnet"}


@pytest.fixture
def trained_crops(
    run: Callable[..., Any], scans: Cohort, tiny_options: tuple[str, ...], tmp_path: Path
) -> Path:
    crops = tmp_path / "crops"
    assert run("crop", scans.root, crops, *tiny_options).status == 0
    return crops


def test_other_commands_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = started(tmp_path, 2, COMMAND, "demo", "--out", out)
    assert done.returncode != 0
    assert "torchrun started 2 processes" in done.stderr
    assert not out.exists()


def test_a_batch_is_shared_without_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [torch.arange(4), torch.arange(8).view(4, 2)]
    assert all(a is b for a, b in zip(part_of_batch(batch), batch, strict=True))
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    shared = part_of_batch(batch)
    assert shared[0].tolist() == [0, 1]
    assert shared[1].tolist() == [[0, 1], [2, 3]]
    with pytest.raises(InputError, match="A batch of 3 cannot be shared evenly by 2"):
        part_of_batch([torch.arange(3)])
    with pytest.raises(InputError, match="cannot be shared"):
        part_of_batch([torch.arange(2), torch.arange(4)])
    with pytest.raises(InputError, match="only 'segment train' share a training"):
        require_one_process(frozenset({("segment", "train")}), ["study", "pni"])
