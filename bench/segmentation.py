"""The five segmenters, whole-liver segmentation and TLCR on predicted masks, as Markdown.

python bench/segmentation.py WORK_FOLDER [docs/results/segmentation.md]

Every figure is what the commands print as JSON (``segment train``, ``segment predict``) or what
``bench/inference_speed.py`` and ``bench/tlcr_speed.py`` measure. Trainings run one after the other;
a second call with the same folder goes on where the first stopped, and a training that was
interrupted has no time. NEONET3D_DATA is the folder of the public data.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parent
DATA = Path(os.environ.get("NEONET3D_DATA", BENCH.parents[1] / "shared" / "data"))
PHANTOMS, PHANTOMS_TO_TRAIN = 100, 40
FINER = ("phantom.spacing_mm=[1.4, 1.4, 2.8]", "phantom.n=60")
LIMIT_MM = 10.0


def neonet3d(*words: object) -> dict[str, Any]:
    """Run a command; its JSON, and how long it took."""
    print("$ neonet3d", *words, file=sys.stderr)
    started = time.perf_counter()
    command = [sys.executable, "-m", "neonet3d", *map(str, words), "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) | {"seconds": time.perf_counter() - started}


def once(path: Path, words: Sequence[object]) -> dict[str, Any]:
    """The result of a command that was run before, or is run now and kept in ``path``."""
    if not path.is_file():
        path.write_text(json.dumps(neonet3d(*words), indent=2) + "\n")
    return json.loads(path.read_text())  # type: ignore[no-any-return]
