"""A phantom cohort on disk: scans, masks, labels, and the truth that no clinic can give."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path

from neonet3d.cohort.cohort import Cohort, CohortWriter
from neonet3d.cohort.folder import new_folder
from neonet3d.cohort.phantom.patient import PhantomCase, simulate_patient, simulate_roi
from neonet3d.cohort.volume import Volume
from neonet3d.config import PhantomConfig, RoiConfig
from neonet3d.errors import InputError
from neonet3d.types import Advance, LabelSchema, no_advance

PHANTOM_CLASSES = LabelSchema(("background", "liver", "portal_vein", "hepatic_vein", "tumour"))
SEED_STRIDE = 100_000  # cohorts of different seeds share no patient


def write_phantom_cohort(
    out: Path,
    config: PhantomConfig,
    *,
    seed: int,
    roi: RoiConfig | None = None,
    advance: Advance = no_advance,
) -> Cohort:
    """Simulate ``config.n`` patients on all cores and write them as a cohort.

    With ``roi``, only a window of its shape and spacing around each tumour is rendered; the
    patients are the same.

    ``participants.tsv`` carries ``pni`` and the Bayes-optimal ``pni_probability``; each patient's
    drawn parameters stand in further columns. The same seed gives the same bytes on any number of
    cores.

    Raises:
        InputError: windows around livers, which are cut and not rendered.
    """
    if roi is not None and roi.around != "tumour":
        raise InputError(
            f"Phantom windows are rendered around tumours, and roi.around is {roi.around}. "
            "Simulate whole scans and cut them with 'neonet3d crop'."
        )
    jobs = [(seed * SEED_STRIDE + i, config, roi) for i in range(config.n)]
    with new_folder(out) as folder:
        writer = CohortWriter(
            folder, PHANTOM_CLASSES, outcome_name="pni", channel="HBP", durable=False
        )
        # A fresh interpreter per worker: forking a process that runs threads can hang.
        workers = min(cpu_count() or 1, config.n)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for i, case in enumerate(pool.map(_simulate, jobs)):
                writer.add(
                    f"phantom_{i:04d}",
                    Volume(case.image, case.affine),
                    Volume(case.label_map, case.affine),
                    outcome=case.pni,
                    extra=_columns(case),
                )
                advance()
        window = {"roi": roi.model_dump(mode="json")} if roi else {}
        writer.finish({"phantom": config.model_dump(mode="json") | {"seed": seed} | window})
    return Cohort.open(out)


def _simulate(job: tuple[int, PhantomConfig, RoiConfig | None]) -> PhantomCase:
    seed, config, roi = job
    if roi is not None:
        return simulate_roi(seed, shape=roi.shape, spacing_mm=roi.spacing_mm)
    return simulate_patient(
        seed, spacing_mm=config.spacing_mm, field_of_view_mm=config.field_of_view_mm
    )


def _columns(case: PhantomCase) -> dict[str, str]:
    truth = {"pni_probability": f"{case.pni_probability:.6f}"}
    return truth | {name: f"{value:.6g}" for name, value in case.parameters.items()}
