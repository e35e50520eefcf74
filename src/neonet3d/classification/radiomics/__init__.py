"""Radiomics by the definitions of the IBSI (Zwanenburg et al. 2020, Radiology 295:328)."""
