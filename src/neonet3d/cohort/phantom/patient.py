"""One phantom patient from one seed.

Drawing and rendering are two steps: `draw_patient` fixes every parameter, `render_patient` applies
them on a grid. Each group of parameters has a random stream of its own, so that a change to one
leaves the others as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from neonet3d.cohort.phantom import invasion as pni
from neonet3d.cohort.phantom.anatomy import (
    DOMAIN_HIGH,
    DOMAIN_LOW,
    draw_anatomy,
    liver_depth,
    points_in_liver,
)
from neonet3d.cohort.phantom.fields import draw_lattice_noise
from neonet3d.cohort.phantom.grid import Float64Array, FloatArray, Grid, Vector
from neonet3d.cohort.phantom.organs import draw_organs
from neonet3d.cohort.phantom.rendering import Scene, render
from neonet3d.cohort.phantom.signal import draw_contrast, draw_scanner
from neonet3d.cohort.phantom.tumour import Tumour, draw_tumour, gross_distance
from neonet3d.cohort.phantom.vessels import VesselTree, grow_tree, murray_radii, stem

# Terminals of the trees, radii of their roots in mm, spread of branches near the tumour in mm.
# The recipe's veins are thin (hepatic 34 + 5 terminals, roots 5.5-7.2 and 4.5-6 mm); ours
# are thicker, so that branches show on a 2.5 x 2.5 x 5 mm grid.
_PORTAL_TERMINALS, _PORTAL_NEAR_TUMOUR = 46, 24
_HEPATIC_TERMINALS, _HEPATIC_NEAR_TUMOUR = 40, 6
_PORTAL_ROOT_MM, _HEPATIC_ROOT_MM = (6.2, 8.0), (6.0, 7.8)
_NEAR_TUMOUR_MM = 24.0
_WINDOW_JITTER_MM = 2.5  # a tumour does not lie in the very middle of its window (recipe)
_TERMINAL_DEPTH_MM = 5.0  # veins end below the capsule (ours)


class _Stream(IntEnum):
    """Second word of a random stream's seed; the first is the patient's."""

    INVASION = 0
    ANATOMY = 1
    VESSELS = 2
    TUMOUR = 3
    SPREAD = 4
    SIGNAL = 5
    TEXTURE = 6
    NOISE = 7
    ORGANS = 8
    WINDOW = 9


@dataclass(frozen=True)
class Patient:
    """A drawn patient: label, signs and everything that is rendered."""

    seed: int
    invasion: pni.Invasion
    scene: Scene


@dataclass(frozen=True)
class PhantomCase:
    """One rendered hepatobiliary-phase examination.

    Args:
        image: `(x, y, z)` float32, scanner units.
        label_map: `(x, y, z)` uint8: 0 background, 1 liver, 2 portal vein, 3 hepatic vein,
            4 tumour.
        affine: `(4, 4)` float64, index to RAS+ mm, positive diagonal.
        pni: Perineural invasion, 0 or 1.
        pni_probability: P(pni = 1 | severity), the best possible prediction.
        parameters: The true values that were drawn, by name; units in the names.
    """

    image: FloatArray
    label_map: npt.NDArray[np.uint8]
    affine: Float64Array
    pni: int
    pni_probability: float
    parameters: dict[str, float]


def simulate_patient(
    seed: int,
    *,
    spacing_mm: Vector = (2.5, 2.5, 5.0),
    field_of_view_mm: Vector = (310.0, 240.0, 200.0),
) -> PhantomCase:
    """Simulate the liver MR of one patient in hepatobiliary phase.

    The same seed gives the same bytes. A seed is a patient: another grid shows the same body, with
    new thermal noise.

    Args:
        seed: Not negative.
        spacing_mm: Voxel size along x, y, z in mm.
        field_of_view_mm: Extent along x, y, z in mm, centred on the body; rounded to whole voxels.
            Default: 124 x 96 x 40 voxels.

    Raises:
        ValueError: If the seed is negative, or a size is not positive or holds no voxel.
    """
    grid = Grid.centred(spacing_mm, field_of_view_mm)
    return render_patient(draw_patient(seed), grid)


def simulate_roi(
    seed: int,
    *,
    shape: tuple[int, int, int],
    spacing_mm: Vector = (2.0, 2.0, 4.0),
    invasion: pni.Invasion | None = None,
) -> PhantomCase:
    """Simulate the same patient's region of interest only: a window around the tumour.

    Args:
        seed: Not negative; a seed is the same patient as in `simulate_patient`.
        shape: Voxels along x, y, z.
        spacing_mm: Voxel size along x, y, z in mm.
        invasion: Other signs than the patient's own, in the same body.

    Raises:
        ValueError: As `simulate_patient`.
    """
    patient = draw_patient(seed, invasion)
    jitter = _rng(seed, _Stream.WINDOW).normal(0, _WINDOW_JITTER_MM, 3)
    x, y, z = (patient.scene.tumour.centre_mm + jitter).tolist()
    extent = (shape[0] * spacing_mm[0], shape[1] * spacing_mm[1], shape[2] * spacing_mm[2])
    return render_patient(patient, Grid.centred(spacing_mm, extent, (x, y, z)))


def draw_label(seed: int) -> pni.Invasion:
    """Severity, label and signs of a patient without drawing or rendering the rest."""
    return pni.draw_invasion(_rng(seed, _Stream.INVASION))


def draw_patient(seed: int, invasion: pni.Invasion | None = None) -> Patient:
    """Draw every parameter of the patient with this seed.

    Args:
        seed: Not negative.
        invasion: Other signs than the patient's own. Closeness to the hilum and size decide where
            the tumour lies; with those of `draw_label` the body is the same.

    Raises:
        ValueError: If the seed is negative.
    """
    invasion = draw_label(seed) if invasion is None else invasion
    anatomy = draw_anatomy(_rng(seed, _Stream.ANATOMY))
    rng = _rng(seed, _Stream.VESSELS)
    portal_root = float(rng.uniform(*_PORTAL_ROOT_MM))
    hepatic_root = float(rng.uniform(*_HEPATIC_ROOT_MM))
    ends = points_in_liver(anatomy, rng, _PORTAL_TERMINALS + _HEPATIC_TERMINALS, _TERMINAL_DEPTH_MM)
    portal = grow_tree(stem(anatomy.portal_stem_mm), ends[:_PORTAL_TERMINALS], rng)
    hepatic = grow_tree(stem(anatomy.hepatic_stem_mm), ends[_PORTAL_TERMINALS:], rng)

    tumour = draw_tumour(
        _rng(seed, _Stream.TUMOUR), anatomy, portal, murray_radii(portal, portal_root), invasion
    )
    near = tumour.centre_mm + rng.normal(
        0, _NEAR_TUMOUR_MM, (_PORTAL_NEAR_TUMOUR + _HEPATIC_NEAR_TUMOUR, 3)
    )
    inside = liver_depth(anatomy, near) > _TERMINAL_DEPTH_MM
    split = _PORTAL_NEAR_TUMOUR
    portal = grow_tree(portal, near[:split][inside[:split]], rng)
    hepatic = grow_tree(hepatic, near[split:][inside[split:]], rng)
    portal_radii = murray_radii(portal, portal_root)

    rng = _rng(seed, _Stream.SPREAD)
    spread = pni.draw_spread(rng, invasion)
    sources = pni.touching(_tumour_distance(tumour, portal))
    cuff = pni.draw_cuff(rng, portal, sources, spread)
    ducts, duct_radii = pni.duct_course(
        rng, portal, portal_radii, sources, cuff.along_mm, spread.duct_radius_mm
    )

    rng = _rng(seed, _Stream.TEXTURE)
    fine, coarse, bias = (
        draw_lattice_noise(rng, spacing, DOMAIN_LOW, DOMAIN_HIGH) for spacing in (4.0, 11.0, 110.0)
    )
    rng = _rng(seed, _Stream.SIGNAL)
    scene = Scene(
        anatomy=anatomy,
        organs=draw_organs(_rng(seed, _Stream.ORGANS)),
        portal=portal,
        portal_radii_mm=portal_radii,
        hepatic=hepatic,
        hepatic_radii_mm=murray_radii(hepatic, hepatic_root),
        tumour=tumour,
        spread=spread,
        cuff=cuff,
        duct_centres_mm=ducts,
        duct_radii_mm=duct_radii,
        contrast=draw_contrast(rng),
        scanner=draw_scanner(rng),
        fine_texture=fine,
        coarse_texture=coarse,
        bias=bias,
        noise_seed=(seed, int(_Stream.NOISE)),
    )
    return Patient(seed, invasion, scene)


def render_patient(patient: Patient, grid: Grid) -> PhantomCase:
    """Render a drawn patient on any grid, say a fine one around the tumour."""
    image, label_map = render(patient.scene, grid)
    return PhantomCase(
        image=image,
        label_map=label_map,
        affine=grid.affine,
        pni=patient.invasion.pni,
        pni_probability=patient.invasion.probability,
        parameters=parameters(patient),
    )


def parameters(patient: Patient) -> dict[str, float]:
    """The true values behind an image, by name."""
    scene, signs = patient.scene, patient.invasion
    tumour, spread, contrast, scanner = scene.tumour, scene.spread, scene.contrast, scene.scanner
    x, y, z = (float(value) for value in tumour.centre_mm)
    return {
        "severity": signs.severity,
        "sign_cuff": signs.cuff,
        "sign_margin": signs.margin,
        "sign_duct": signs.duct,
        "sign_hilum": signs.hilum,
        "sign_size": signs.size,
        "cuff_peak": spread.cuff_peak,
        "cuff_length_mm": spread.cuff_length_mm,
        "cuff_width_mm": spread.cuff_width_mm,
        "margin_mm": spread.margin_mm,
        "duct_radius_mm": spread.duct_radius_mm,
        "tumour_radius_mm": tumour.radius_mm,
        "tumour_x_mm": x,
        "tumour_y_mm": y,
        "tumour_z_mm": z,
        "tumour_to_hilum_mm": float(np.linalg.norm(tumour.centre_mm - scene.anatomy.hilum_mm)),
        "tumour_blur_mm": tumour.blur_mm,
        "tumour_halo": tumour.halo,
        "liver_scale": scene.anatomy.scale,
        "liver_t1_ms": contrast.liver_ms,
        "blood_t1_ms": contrast.blood_ms,
        "rim_t1_ms": contrast.rim_ms,
        "cloud_t1_ms": contrast.cloud_ms,
        "cloud_weight": contrast.cloud_weight,
        "texture": contrast.texture,
        "repetition_time_ms": scanner.repetition_time_ms,
        "echo_time_ms": scanner.echo_time_ms,
        "flip_angle_deg": scanner.flip_angle_deg,
        "snr": scanner.snr,
        "bias_amplitude": scanner.bias_amplitude,
        "gain": scanner.gain,
    }


def _tumour_distance(tumour: Tumour, tree: VesselTree) -> Float64Array:
    return np.asarray(gross_distance(tumour, *tree.positions_mm.T), dtype=np.float64)


def _rng(seed: int, stream: _Stream) -> np.random.Generator:
    if seed < 0:
        raise ValueError(f"seed is {seed}: give a whole number that is not negative.")
    return np.random.default_rng((seed, int(stream)))
