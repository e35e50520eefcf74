"""The job of the page *Cohort*: what is wrong with the data, case by case, with the mend."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from neonet3d.app.worker import Say
from neonet3d.cohort.check import check_folder


@dataclass(frozen=True)
class CheckCohort:
    """As ``neonet3d cohort check``."""

    root: Path

    def run(self, folder: Path, say: Say) -> dict[str, object]:
        say("reading every case")
        return {"findings": [asdict(finding) for finding in check_folder(self.root)]}
