from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neonet3d.cohort.importers.classes import ClassMap
from neonet3d.cohort.importers.source import Scan, Source, write_source
from neonet3d.cohort.volume import Volume
from neonet3d.errors import InputError
from neonet3d.types import LabelSchema

TABLE = pd.DataFrame(
    {"case": ["P-1"], "participant_id": ["P-1"], "pni": ["1"], "age": ["61"]}, dtype=object
)


def source(*, pseudonymous: bool = False, class_map: ClassMap | None = None) -> Source:
    def read() -> tuple[Volume, Volume]:
        image = Volume(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.eye(4))
        return image, image.with_data((image.data > 30).astype(np.uint8))

    return Source(
        (Scan("case_0001", read, key="P-1"),),
        LabelSchema(("background", "liver", "tumour")),
        "MR",
        {"layout": "test"},
        class_map,
        pseudonymous,
    )


def test_the_row_of_a_scan_is_found_by_its_key(tmp_path: Path) -> None:
    cohort = write_source(source(), tmp_path / "out", labels=TABLE, outcome_name="pni")
    case = cohort["case_0001"]
    assert (case.participant, case.outcome) == ("P-1", 1)


def test_a_pseudonymous_source_keeps_the_key_to_itself(tmp_path: Path) -> None:
    hidden = source(pseudonymous=True)
    cohort = write_source(hidden, tmp_path / "out", labels=TABLE, outcome_name="pni")
    written = (cohort.root / "participants.tsv").read_text()
    assert written == "participant_id\tcase\tpni\tage\ncase_0001\tcase_0001\t1\t61\n"
    with pytest.raises(InputError, match="column 'mrn' of the table holds PatientIDs"):
        write_source(hidden, tmp_path / "b", labels=TABLE.assign(mrn="P-1"))
    assert not (tmp_path / "b").exists()


def test_a_class_that_was_asked_for_must_be_seen(tmp_path: Path) -> None:
    asked = source(class_map=ClassMap.parse("liver=5,tumour=7,tumour=8"))
    with pytest.raises(InputError, match=r"Of 1 masks none has a voxel of 'tumour' \(7 or 8 in"):
        write_source(asked, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changed", [{"participant_id": "P 1"}, {"note": "a\tb"}, {"no\nte": "a"}], ids=str
)
def test_a_table_that_cannot_be_written_is_refused_before_a_scan_is_read(
    tmp_path: Path, changed: dict[str, str]
) -> None:
    def read() -> tuple[Volume, Volume]:
        raise AssertionError("a scan was read")

    listed = replace(source(), scans=(Scan("case_0001", read, key="P-1"),))
    with pytest.raises(InputError, match="table of labels") as refused:
        write_source(listed, tmp_path / "out", labels=TABLE.assign(**changed))
    assert str(tmp_path) not in str(refused.value)
