"""Render a drawn patient on a grid: tissue, signal, partial volume, bias, noise, and the mask.

Everything happens on a grid of twice the resolution; a voxel's signal is the mean of its eight
samples. Costly fields are evaluated in the liver's and the tumour's boxes only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from neonet3d.cohort.phantom import signal
from neonet3d.cohort.phantom.anatomy import Anatomy, liver_distance
from neonet3d.cohort.phantom.fields import LatticeNoise
from neonet3d.cohort.phantom.grid import (
    BoolArray,
    Box,
    Float64Array,
    FloatArray,
    Grid,
    average_blocks,
    largest_class,
    refine_box,
)
from neonet3d.cohort.phantom.invasion import Cuff, Spread
from neonet3d.cohort.phantom.organs import Organs, surroundings
from neonet3d.cohort.phantom.shapes import paint_balls
from neonet3d.cohort.phantom.tumour import Tumour, mask_distance, tumour_fraction, tumour_r1
from neonet3d.cohort.phantom.vessels import VesselTree, with_midpoints

_FRINGE_MM = 22.0  # halo and tongues end within this distance of the gross tumour


@dataclass(frozen=True)
class Scene:
    """All that is in a patient and all that the scanner does: what `render` needs, fully drawn.

    Args:
        anatomy: Body and liver.
        organs: What surrounds the liver.
        portal: Portal tree and `portal_radii_mm`, `(n,)`.
        portal_radii_mm: See `portal`.
        hepatic: Hepatic tree and `hepatic_radii_mm`, `(m,)`.
        hepatic_radii_mm: See `hepatic`.
        tumour: Shape and interior.
        spread: What the invasion does.
        cuff: Where it does it.
        duct_centres_mm: `(k, 3)` centres of the balls that make dilated ducts, mm.
        duct_radii_mm: `(k,)` their radii, mm.
        contrast: Relaxation times.
        scanner: Sequence and coil.
        fine_texture: Field of the liver's R1.
        coarse_texture: The same, coarser.
        bias: Field of the coil's sensitivity.
        noise_seed: Seed of the thermal noise.
    """

    anatomy: Anatomy
    organs: Organs
    portal: VesselTree
    portal_radii_mm: Float64Array
    hepatic: VesselTree
    hepatic_radii_mm: Float64Array
    tumour: Tumour
    spread: Spread
    cuff: Cuff
    duct_centres_mm: Float64Array
    duct_radii_mm: Float64Array
    contrast: signal.Contrast
    scanner: signal.Scanner
    fine_texture: LatticeNoise
    coarse_texture: LatticeNoise
    bias: LatticeNoise
    noise_seed: tuple[int, ...]


def render(scene: Scene, grid: Grid) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """The image and the label map of a scene on any grid.

    Two grids over one patient show the same anatomy; only their thermal noise is drawn per voxel.

    Args:
        scene: The patient.
        grid: The scan's grid, `(nx, ny, nz)`.

    Returns:
        Image `(nx, ny, nz)` float32 in scanner units, and labels uint8 (see `largest_class`).
    """
    scanner, contrast = scene.scanner, scene.contrast
    fine = grid.refined()
    image = signal.tissue_signals(contrast, scanner)[
        surroundings(scene.anatomy, scene.organs, fine)
    ]
    box = grid.box(*scene.anatomy.liver_box_mm())
    labels = np.zeros(grid.shape, dtype=np.uint8)
    if all(b.stop > b.start for b in box):
        inner = refine_box(box)
        labels[box] = _render_liver(scene, grid.crop(box).refined(), image[inner])
    measured = average_blocks(image)
    # The sensitivity is smooth: it may be applied after the average.
    measured *= signal.coil_sensitivity(scanner, scene.bias.on_grid(grid), *grid.mesh_mm())
    rng = np.random.default_rng(scene.noise_seed)
    sigma = liver_signal(scene) / scanner.snr
    measured = signal.add_rician_noise(measured, sigma, rng)
    measured *= np.float32(scanner.gain)
    return np.ascontiguousarray(measured), labels


def liver_signal(scene: Scene) -> float:
    """Noise-free signal of healthy liver at unit sensitivity and gain."""
    r1 = np.full(1, 1 / scene.contrast.liver_ms, np.float32)
    scanner = scene.scanner
    decay = signal.echo_decay(scanner.echo_time_ms, signal.T2STAR_LIVER_MS)
    flip, repetition = scanner.flip_angle_deg, scanner.repetition_time_ms
    return decay * float(signal.spgr_signal(r1, repetition, flip)[0])


def _render_liver(scene: Scene, grid: Grid, image: FloatArray) -> npt.NDArray[np.uint8]:
    """Draw liver, veins and tumour into `image`, a view of the fine one; return coarse labels."""
    contrast, scanner = scene.contrast, scene.scanner
    surface = scene.anatomy.surface.on_grid(grid)
    liver: BoolArray = liver_distance(scene.anatomy, *grid.mesh_mm(), surface) < 0
    tumour_box, tumour_share, tumour_mask, r1_tumour, halo = _tumour_maps(scene, grid)
    portal, hepatic = _veins(scene, grid, liver)

    r1 = scene.fine_texture.on_grid(grid)
    r1 += scene.coarse_texture.on_grid(grid)
    r1 *= np.float32(0.7 * contrast.texture / contrast.liver_ms)
    r1 += np.float32(1 / contrast.liver_ms)
    loss = _cuff(scene, grid)
    loss[tumour_box] = 1 - (1 - loss[tumour_box]) * (1 - halo)
    signal.mix_r1(r1, 1 / signal.T1_UNENHANCED_LIVER_MS, loss)
    if len(scene.duct_centres_mm):
        ducts = np.zeros(grid.shape, np.float32)
        _paint_tube(ducts, grid, scene.duct_centres_mm, scene.duct_radii_mm)
        signal.mix_r1(r1, 1 / signal.T1_OBSTRUCTED_BILE_MS, ducts)
    veins = np.maximum(portal, hepatic)
    signal.mix_r1(r1, 1 / contrast.blood_ms, veins)
    part = r1[tumour_box]
    part += tumour_share * (r1_tumour - part)

    uptake = signal.spgr_signal(r1, scanner.repetition_time_ms, scanner.flip_angle_deg)
    # Only tissue without hepatocytes decays with the slower T2*; the mix is linear in the share.
    other = veins
    other[tumour_box] = np.maximum(other[tumour_box], tumour_share)
    liver_decay = signal.echo_decay(scanner.echo_time_ms, signal.T2STAR_LIVER_MS)
    other_decay = signal.echo_decay(scanner.echo_time_ms, signal.T2STAR_OTHER_MS)
    uptake *= np.float32(liver_decay) + np.float32(other_decay - liver_decay) * other
    np.copyto(image, uptake, where=liver)
    _draw_trunk(scene, grid, portal, liver, image)

    tumour = np.zeros(grid.shape, np.float32)
    tumour[tumour_box] = tumour_mask & liver[tumour_box]
    portal *= 1 - tumour
    hepatic *= 1 - tumour
    np.minimum(hepatic, 1 - portal, out=hepatic)
    parenchyma = liver - tumour
    parenchyma -= (portal + hepatic) * liver
    return largest_class(*(average_blocks(v) for v in (parenchyma, portal, hepatic, tumour)))


def _paint_tube(
    canvas: FloatArray, grid: Grid, centres_mm: Float64Array, radii_mm: Float64Array
) -> None:
    """Share of a tube in every sample; its edge is antialiased over one sample."""
    edge = float(np.prod(grid.spacing_mm)) ** (1 / 3)
    paint_balls(canvas, grid, centres_mm, radii_mm, np.ones(len(radii_mm)), fade_mm=edge, level=0.5)


def _veins(scene: Scene, grid: Grid, liver: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Share of portal and hepatic vein within the liver, without the portal trunk outside."""
    shares = []
    for tree, radii in (
        (scene.portal, scene.portal_radii_mm),
        (scene.hepatic, scene.hepatic_radii_mm),
    ):
        canvas = np.zeros(grid.shape, np.float32)
        centres, (balls,) = with_midpoints(tree, radii)
        _paint_tube(canvas, grid, centres, balls)
        canvas *= liver
        shares.append(canvas)
    return shares[0], shares[1]


def _draw_trunk(
    scene: Scene, grid: Grid, portal: FloatArray, liver: BoolArray, image: FloatArray
) -> None:
    """The portal trunk between confluence and hilum, in `image` and in `portal`, in place."""
    trunk = scene.portal.branch == 0
    canvas = np.zeros(grid.shape, np.float32)
    _paint_tube(canvas, grid, scene.portal.positions_mm[trunk], scene.portal_radii_mm[trunk])
    canvas[liver] = 0
    blood = signal.tissue_signals(scene.contrast, scene.scanner)[signal.Tissue.BLOOD]
    image += canvas * (blood - image)
    np.maximum(portal, canvas, out=portal)


def _cuff(scene: Scene, grid: Grid) -> FloatArray:
    """Loss of uptake around portal branches, 0-1."""
    canvas = np.zeros(grid.shape, np.float32)
    centres, (radii, amplitude) = with_midpoints(
        scene.portal, scene.portal_radii_mm, scene.cuff.amplitude
    )
    # A loss of under 2 % is far below the noise; leaving it out halves the work.
    seen = amplitude > 0.02
    paint_balls(
        canvas, grid, centres[seen], radii[seen], amplitude[seen],
        fade_mm=scene.spread.cuff_width_mm, level=1.3,
    )  # fmt: skip
    return canvas


def _tumour_maps(
    scene: Scene, grid: Grid
) -> tuple[Box, FloatArray, BoolArray, FloatArray, FloatArray]:
    """The tumour's box, and in it: tissue share, mask, 1/T1 in 1/ms, halo."""
    tumour, contrast = scene.tumour, scene.contrast
    reach = tumour.reach_mm + _FRINGE_MM
    box = grid.box(tumour.centre_mm - reach, tumour.centre_mm + reach)
    inner = grid.crop(box)
    distance = mask_distance(tumour, inner)
    share = tumour_fraction(tumour, inner, distance, scene.spread.margin_mm)
    r1 = tumour_r1(
        tumour, inner, distance,
        rim_ms=contrast.rim_ms, cloud_ms=contrast.cloud_ms,
        cloud_weight=contrast.cloud_weight, texture=contrast.tumour_texture,
    )  # fmt: skip
    halo = np.maximum(distance, 0)
    halo *= np.float32(-1 / tumour.halo_mm)
    np.exp(halo, out=halo)
    halo *= np.float32(tumour.halo)
    return box, share, distance < 0, r1, halo
