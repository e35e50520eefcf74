from __future__ import annotations

from neonet3d.cohort.findings import Finding, by_severity, finding_of
from neonet3d.errors import InputError


def test_a_sentence_becomes_problem_and_mend() -> None:
    error = InputError("case_1: the spacing is 0.5 mm. It is wrong. Export it again.")
    assert finding_of("case_1", error) == Finding(
        "case_1", "error", "the spacing is 0.5 mm. It is wrong", "Export it again."
    )
    assert finding_of(None, "The table is empty. Fill it.").problem == "The table is empty"


def test_errors_come_first_and_the_order_stays() -> None:
    given = [
        Finding(name, severity, "", "")
        for name, severity in (
            ("a", "note"),
            ("b", "warning"),
            ("c", "error"),
            ("d", "warning"),
            ("e", "error"),
        )
    ]
    assert [finding.case for finding in by_severity(given)] == ["c", "e", "b", "d", "a"]
