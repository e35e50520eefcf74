"""Codes that stand in DICOM objects: SNOMED CT and DICOM's own where there are any, else ours."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

from neonet3d.errors import InputError

SCHEME = "99NEONET3D"
OUR_SCHEME = CodingSchemeIdentificationItem(
    designator=SCHEME, name="Codes of neonet3d", responsible_organization="neonet3d"
)
INTENDED_USE = CodedConcept("1001", SCHEME, "Intended use")
RESEARCH_ONLY = CodedConcept("1002", SCHEME, "Research use only, not a medical device")
INTERVAL = CodedConcept("1003", SCHEME, "95 % interval, delete-a-group jackknife")
LIKE_TRAINING = CodedConcept("1004", SCHEME, "Like the training cases")
MAY_BE = CodedConcept("1005", SCHEME, "Prediction set of 90 % coverage")
LABELLED = Code("1006", SCHEME, "Labelled structure")
YES = CodedConcept("1007", SCHEME, "Yes")
NO = CodedConcept("1008", SCHEME, "No: no figure here is to be trusted")
PROCEDURES = {
    "MR": Code("113091000", "SCT", "Magnetic resonance imaging"),
    "CT": Code("77477000", "SCT", "Computed tomography"),
}
LONGEST_MEANING = 64  # characters (LO)
NAMESPACE = uuid.UUID("6e656f6e-6574-3364-8000-000000000000")


@dataclass(frozen=True)
class Term:
    """What a class of the label maps is (DICOM PS3.3, C.8.20.4: property category and type)."""

    category: Code
    kind: Code


_STRUCTURE, _ABNORMAL = codes.SCT.AnatomicalStructure, codes.SCT.MorphologicallyAbnormalStructure
TERMS = {
    "liver": Term(_STRUCTURE, codes.SCT.Liver),
    "portal_vein": Term(_STRUCTURE, codes.SCT.PortalVein),
    "hepatic_vein": Term(_STRUCTURE, codes.SCT.HepaticVein),
    "hippocampus": Term(_STRUCTURE, codes.SCT.Hippocampus),
    "tumour": Term(_ABNORMAL, codes.SCT.Neoplasm),
    "tumor": Term(_ABNORMAL, codes.SCT.Neoplasm),
}


def term_of(class_name: str) -> Term:
    """The code of a class; a class that has none here gets one of ours with its name.

    Raises:
        InputError: a name that a code cannot carry.
    """
    return TERMS.get(class_name) or Term(
        LABELLED, Code(_value("class", class_name), SCHEME, _meaning(class_name.replace("_", " ")))
    )


def probability_of(outcome: str) -> CodedConcept:
    """The name of a measured probability.

    Raises:
        InputError: an outcome that a code cannot carry.
    """
    return CodedConcept(_value("outcome", outcome), SCHEME, _meaning(f"Probability of {outcome}"))


def prediction_set(outcome: str, values: list[int]) -> CodedConcept:
    """Which values of the outcome are in a prediction set."""
    said = " or ".join(f"{outcome} = {value}" for value in values) or "neither value"
    return CodedConcept(_value("set", said), SCHEME, _meaning(said))


def uid_of(*what: str) -> UID:
    """The same UID for the same object (RFC 4122, version 5), below the root 2.25."""
    return UID(f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(what)).int}")


def _value(kind: str, name: str) -> str:
    """Sixteen characters at most, and different for different names."""
    return f"{kind[0].upper()}{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _meaning(text: str) -> str:
    if len(text) > LONGEST_MEANING or not text.isascii():
        raise InputError(
            f"{text!r} is no meaning of a DICOM code, which has up to {LONGEST_MEANING} ASCII "
            "characters. Give the class or the outcome a shorter plain name."
        )
    return text
