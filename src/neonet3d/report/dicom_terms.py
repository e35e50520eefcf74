"""Codes that stand in DICOM objects: SNOMED CT and DICOM's own where there are any, else ours."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID

SCHEME = "99NEONET3D"
PROBABILITY = codes.DCM.Probability
INTENDED_USE = CodedConcept("1001", SCHEME, "Intended use")
RESEARCH_ONLY = CodedConcept("1002", SCHEME, "Research use only, not a medical device")
NAMESPACE = uuid.UUID("6e656f6e-6574-3364-8000-000000000000")


@dataclass(frozen=True)
class Term:
    """What a class of the label maps is (DICOM PS3.3, C.8.20.4: property category and type)."""

    category: Code
    kind: Code


TERMS = {
    "liver": Term(codes.SCT.AnatomicalStructure, codes.SCT.Liver),
    "portal_vein": Term(codes.SCT.AnatomicalStructure, codes.SCT.PortalVein),
    "hepatic_vein": Term(codes.SCT.AnatomicalStructure, codes.SCT.HepaticVein),
    "tumour": Term(codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Neoplasm),
    "hippocampus": Term(codes.SCT.AnatomicalStructure, codes.SCT.Hippocampus),
}


def term_of(class_name: str) -> Term:
    """The code of a class; a class that has none here gets one of ours with its name."""
    known = TERMS.get(class_name)
    if known is not None:
        return known
    return Term(
        codes.SCT.AnatomicalStructure,
        Code(f"class-{class_name}"[:16], SCHEME, class_name.replace("_", " ")),
    )


def finding(outcome: str) -> CodedConcept:
    """What a probability is of: the outcome of a cohort's table, by its name."""
    return CodedConcept(f"outcome-{outcome}"[:16], SCHEME, outcome)


def uid_of(*what: str) -> UID:
    """The same UID for the same object (RFC 4122, version 5), below the root 2.25."""
    return UID(f"2.25.{uuid.uuid5(NAMESPACE, '/'.join(what)).int}")
