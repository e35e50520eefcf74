"""How good synthetic patches are: fidelity, two-sample test, diversity, mask adherence, copying."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, Shaped

from neonet3d.cohort.cohort import Cohort
from neonet3d.cohort.patches import Patches, fit_patches, load_patches
from neonet3d.engine.progress import progress
from neonet3d.errors import InputError
from neonet3d.generation.audit import CopyingAudit, audit_copying
from neonet3d.generation.generator import LatentGenerator
from neonet3d.generation.region_features import band_statistics, region_features
from neonet3d.generation.sources import case_groups
from neonet3d.metrics.diversity import pairwise_ms_ssim
from neonet3d.metrics.features import EXTRACTOR_NAME, Plane, SliceFeatures, slice_features
from neonet3d.metrics.fidelity import FidelityScore, fidelity_score
from neonet3d.metrics.floor import LEAST_TO_MATCH
from neonet3d.metrics.interval import Interval, bootstrap_mean
from neonet3d.metrics.manifold import LEAST_CASES, PrecisionRecall, precision_recall
from neonet3d.metrics.overlap import dice
from neonet3d.metrics.spectrum import SpectrumDifference, compare_spectra, radial_spectrum
from neonet3d.metrics.two_sample import two_sample_auc
from neonet3d.segmentation.predict import Segmenter

SLICES_PER_CASE = 4
SLICE_SIZE = 96


@dataclass(frozen=True)
class PlaneFeatures:
    """Features of slices of one plane, and which case each slice belongs to."""

    features: Float[np.ndarray, "m d"]
    groups: np.ndarray


@dataclass(frozen=True)
class GeneratorScores:
    """Everything that is measured of synthetic patches beside real ones.

    Attributes:
        fidelity: KID and FID per plane, with their floors.
        two_sample: AUC with which region features tell synthetic from real; 0.5 is the best.
        two_sample_classes: Classes whose region gave features.
        two_sample_slices: The same AUC with ImageNet features of slices, which no part of the
            generator was calibrated on.
        ms_ssim, ms_ssim_of_real: Mean MS-SSIM between patches of one set; lower is more diverse.
        manifold: Precision and recall; None under ``manifold.LEAST_CASES`` cases on a side.
        spectrum: Power spectra, synthetic against real, in decibels.
        adherence, adherence_of_real: Dice per class of NeoSeg's reading; empty without NeoSeg.
        copying: None without the generator.
    """

    fidelity: tuple[FidelityScore, ...]
    two_sample: Interval
    two_sample_classes: tuple[str, ...]
    two_sample_slices: Interval
    ms_ssim: Interval
    ms_ssim_of_real: Interval
    manifold: PrecisionRecall | None
    spectrum: SpectrumDifference
    adherence: dict[str, Interval]
    adherence_of_real: dict[str, Interval]
    copying: CopyingAudit | None

    def as_json(self) -> dict[str, Any]:
        """One entry for each measure, with the copying audit's verdict."""
        copying = None if self.copying is None else self.copying.as_json()
        return asdict(replace(self, copying=None)) | {"copying": copying}


def evaluate_generator(
    real: Cohort,
    synthetic: Cohort,
    *,
    seed: int,
    segmenter: Segmenter | None = None,
    generator: LatentGenerator | None = None,
    training: Cohort | None = None,
) -> GeneratorScores:
    """All measures at once, on the grid of the synthetic patches.

    Args:
        real: Held-out cases.
        synthetic: What the generator drew.
        seed: Seed of all resampling.
        segmenter: NeoSeg of the training cases, for mask adherence.
        generator: For the copying audit, with ``training``.
        training: The cases that trained it.

    Raises:
        InputError: Under four real or synthetic cases, cohorts or a segmenter of other classes,
            a generator without its training cases (or these without it), or what the single
            measures refuse.
    """
    if (generator is None) != (training is None):
        raise InputError("The copying audit needs a generator and its training cases. Give both.")
    if min(len(real), len(synthetic)) < LEAST_TO_MATCH:
        raise InputError(
            f"There are {len(real)} real and {len(synthetic)} synthetic cases, but a comparison "
            f"needs at least {LEAST_TO_MATCH} of each. Add cases."
        )
    if synthetic.schema.names != real.schema.names:
        raise InputError(
            f"The real cases have the classes {list(real.schema.names)}, the synthetic ones "
            f"{list(synthetic.schema.names)}. Compare cohorts of the same classes."
        )
    if segmenter is not None:
        segmenter.card.refuse_other_classes(real.schema)
    copying = None
    if generator is not None and training is not None:
        copying = audit_copying(generator, training, real, synthetic, seed=seed)
    grid, _ = fit_patches(synthetic)
    _, normaliser = fit_patches(real)
    patches, drawn = (load_patches(cohort, grid, normaliser) for cohort in (real, synthetic))
    planes = both_planes(patches, drawn)
    groups = case_groups(synthetic, real)
    test, classes = tell_apart(patches, drawn, real.schema.names, *groups, seed=seed)
    adherence, of_real = {}, {}
    if segmenter is not None:
        adherence = summarise(mask_adherence(segmenter, synthetic), seed=seed)
        of_real = summarise(mask_adherence(segmenter, real), seed=seed)
    return GeneratorScores(
        fidelity=compare_planes(*planes, *groups, seed=seed),
        two_sample=test,
        two_sample_classes=classes,
        two_sample_slices=tell_slices_apart(*planes, *groups, seed=seed),
        ms_ssim=pairwise_ms_ssim(drawn.images, seed),
        ms_ssim_of_real=pairwise_ms_ssim(patches.images, seed),
        manifold=_manifold(*planes, seed=seed),
        spectrum=compare_spectra(
            radial_spectrum(patches.images.numpy(), grid.spacing_mm),
            radial_spectrum(drawn.images.numpy(), grid.spacing_mm),
            seed,
        ),
        adherence=adherence,
        adherence_of_real=of_real,
        copying=copying,
    )


def compare_patches(real: Patches, synthetic: Patches, *, seed: int) -> tuple[FidelityScore, ...]:
    """KID and FID per plane, with their floors; patch i of both sides has one patient's mask."""
    patients = np.arange(len(real))
    return compare_planes(*both_planes(real, synthetic), patients, patients, seed=seed)


def plane_features(patches: Patches, extractor: SliceFeatures) -> dict[Plane, PlaneFeatures]:
    """ImageNet features of evenly spaced slices in each plane."""
    volumes = ((patches.images + 1) / 2).clamp(0, 1)
    return {
        plane: PlaneFeatures(
            *slice_features(
                volumes,
                plane,
                SLICES_PER_CASE,
                spacing_mm=patches.spacing_mm,
                size=SLICE_SIZE,
                extractor=extractor,
            )
        )
        for plane in get_args(Plane)
    }


def tell_apart(
    real: Patches,
    synthetic: Patches,
    classes: tuple[str, ...],
    real_groups: Shaped[np.ndarray, " r"],
    synthetic_groups: Shaped[np.ndarray, " s"],
    *,
    seed: int,
) -> tuple[Interval, tuple[str, ...]]:
    """Two-sample test on region features, and the classes that gave them.

    Without masks on both sides the whole patch is one region, and the classes are none.
    """
    if real.label_maps is None or synthetic.label_maps is None:
        classes = ()
        statistics = [band_statistics(side.images, None, 1) for side in (real, synthetic)]
    else:
        statistics = [
            band_statistics(side.images, side.label_maps, len(classes))
            for side in (real, synthetic)
        ]
    features = region_features(*statistics)
    test = two_sample_auc(
        features.real,
        features.synthetic,
        seed,
        real_groups=real_groups,
        synthetic_groups=synthetic_groups,
    )
    return test, tuple(classes[k] for k in features.classes) if classes else ()


def tell_slices_apart(
    real: dict[Plane, PlaneFeatures],
    synthetic: dict[Plane, PlaneFeatures],
    real_groups: Shaped[np.ndarray, " r"],
    synthetic_groups: Shaped[np.ndarray, " s"],
    *,
    seed: int,
) -> Interval:
    """Two-sample test on the ImageNet features of whole cases."""
    return two_sample_auc(
        case_features(real),
        case_features(synthetic),
        seed,
        real_groups=real_groups,
        synthetic_groups=synthetic_groups,
    )


def mask_adherence(segmenter: Segmenter, pairs: Cohort) -> list[dict[str, float]]:
    """Dice of NeoSeg's reading of each image against its mask, per class (nan: both empty)."""
    labels = {name: value for name, value in pairs.schema.as_mapping().items() if value > 0}
    scores = []
    with progress("mask adherence", len(pairs)) as advance:
        for case in pairs:
            image, mask = case.read_with_mask()
            scores.append(dice(segmenter.segment(image).label_map.data, mask.data, labels))
            advance()
    return scores


def summarise(scores: list[dict[str, float]], *, seed: int) -> dict[str, Interval]:
    """Mean per class with a bootstrap interval over cases; a class never seen is left out."""
    summary = {}
    for name in scores[0]:
        values = np.array([score[name] for score in scores])
        if np.isfinite(values).any():
            summary[name] = bootstrap_mean(values, seed)
    return summary


def both_planes(
    real: Patches, synthetic: Patches
) -> tuple[dict[Plane, PlaneFeatures], dict[Plane, PlaneFeatures]]:
    """Features of both sides by one extractor."""
    extractor = SliceFeatures()
    with progress("features of slices", 2) as advance:
        of_real = plane_features(real, extractor)
        advance()
        of_synthetic = plane_features(synthetic, extractor)
        advance()
    return of_real, of_synthetic


def compare_planes(
    real: dict[Plane, PlaneFeatures],
    synthetic: dict[Plane, PlaneFeatures],
    real_groups: Shaped[np.ndarray, " r"],
    synthetic_groups: Shaped[np.ndarray, " s"],
    *,
    seed: int,
) -> tuple[FidelityScore, ...]:
    """KID and FID per plane, with their floors.

    Args:
        real_groups, synthetic_groups: of the cases (``case_groups``).
    """
    return tuple(
        fidelity_score(
            real[plane].features,
            synthetic[plane].features,
            real_groups=real[plane].groups,
            synthetic_groups=synthetic[plane].groups,
            real_patients=real_groups[real[plane].groups],
            synthetic_patients=synthetic_groups[synthetic[plane].groups],
            extractor=EXTRACTOR_NAME,
            plane=plane,
            seed=seed,
        )
        for plane in get_args(Plane)
    )


def _manifold(
    real: dict[Plane, PlaneFeatures], synthetic: dict[Plane, PlaneFeatures], *, seed: int
) -> PrecisionRecall | None:
    of_real, of_synthetic = case_features(real), case_features(synthetic)
    if min(len(of_real), len(of_synthetic)) < LEAST_CASES:
        return None
    return precision_recall(of_real, of_synthetic, seed)


def case_features(planes: dict[Plane, PlaneFeatures]) -> Float[np.ndarray, "n d"]:
    """One vector for each case: the mean over its slices, the three planes joined."""
    return np.concatenate(
        [
            part.features.reshape(-1, SLICES_PER_CASE, part.features.shape[1]).mean(axis=1)
            for part in planes.values()
        ],
        axis=1,
    )
