"""Patches without a tumour: the middle of a liver says nothing of a tumour's outcome."""

from __future__ import annotations

from neonet3d.cohort.case import Case
from neonet3d.cohort.cohort import Cohort
from neonet3d.errors import InputError
from neonet3d.segmentation.crop_record import read_record


def refuse_without_tumour(cohort: Cohort) -> None:
    """A classifier learns from, and is asked about, tumours.

    A patch that TLCR cut is judged by its record: where no tumour was found,
    ``n_lesions`` is 0. Any other case is judged by its mask, where it has one with a tumour among
    its classes.

    Raises:
        InputError: cases without a tumour; how many, and the first.
    """
    lost = [case.name for case in cohort if _shows_none(cohort, case)]
    if lost:
        raise InputError(
            f"{len(lost)} cases show no tumour (the first is {lost[0]}), so their patch is the "
            "middle of the liver. Check their masks, or say --allow-no-tumour."
        )


def _shows_none(cohort: Cohort, case: Case) -> bool:
    record = read_record(cohort.root, case.name)
    if record is not None:
        return record.n_lesions == 0
    if "tumour" not in cohort.schema or (mask := case.read_mask()) is None:
        return False
    return not (mask.data == cohort.schema.value("tumour")).any()
