"""Reading what ``make_series`` wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from neonet3d.cohort.importers.dicom_headers import Series, list_files, read_series

ReadOne = Callable[[Path], Series]


@pytest.fixture(scope="session")
def read_one() -> ReadOne:
    """The one series of a folder."""

    def read(folder: Path) -> Series:
        found, others = read_series(folder, list_files(folder))
        assert (len(found), others) == (1, 0)
        return found[0]

    return read
