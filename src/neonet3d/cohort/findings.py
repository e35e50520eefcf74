"""What a check finds: a case, what is wrong with it, and the mend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from neonet3d.errors import InputError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        case: name of the case; None where it is the cohort's.
        severity: an ``error`` makes a result wrong or stops a run; a ``warning`` may be meant; a
            ``note`` says how neonet3d treats what is there, and asks for nothing.
        problem: what was found.
        mend: what to do.
    """

    case: str | None
    severity: Severity
    problem: str
    mend: str


def finding_of(case: str | None, sentence: str | InputError) -> Finding:
    """An error as a finding: our sentences begin with the case's name and end with the mend."""
    problem, _, mend = str(sentence).removeprefix(f"{case}: ").rpartition(". ")
    return Finding(case, "error", problem, mend)


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, warnings, notes; each in the order in which they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
