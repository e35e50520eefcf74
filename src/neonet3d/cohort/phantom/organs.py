"""What surrounds the liver: wall, ribs, lung, heart, stomach, spleen, kidneys, spine, vessels.

None of it depends on the label. Places and sizes are ours, drawn so that an axial slice reads as an
upper abdomen; nothing here is meant to teach anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from neonet3d.cohort.phantom.anatomy import (
    CAVA_RADIUS_MM,
    DOMAIN_HIGH,
    DOMAIN_LOW,
    RIGHT_KIDNEY,
    WALL_MM,
    Anatomy,
    body_distance,
)
from neonet3d.cohort.phantom.fields import LatticeNoise, draw_lattice_noise
from neonet3d.cohort.phantom.grid import Float64Array, Grid, Vector
from neonet3d.cohort.phantom.signal import Tissue

TissueMap = npt.NDArray[np.uint8]

# Tissue, centre and semi-axes in mm, painted in this order. Parts of a group move together.
_ORGANS: tuple[tuple[str, Tissue, Vector, Vector], ...] = (
    ("heart", Tissue.MYOCARDIUM, (-22.0, 28.0, 96.0), (56.0, 44.0, 36.0)),
    ("heart", Tissue.BLOOD, (-24.0, 28.0, 98.0), (42.0, 31.0, 28.0)),
    ("stomach", Tissue.MUSCLE, (-68.0, 22.0, 14.0), (41.0, 47.0, 47.0)),
    ("stomach", Tissue.STOMACH, (-68.0, 22.0, 14.0), (37.0, 43.0, 43.0)),
    ("spleen", Tissue.SPLEEN, (-103.0, -42.0, 10.0), (25.0, 44.0, 48.0)),
    ("kidney", Tissue.KIDNEY, (-60.0, -56.0, -48.0), (26.0, 23.0, 50.0)),
    ("kidney", Tissue.FAT, (-50.0, -50.0, -48.0), (13.0, 9.0, 22.0)),
    ("pancreas", Tissue.PANCREAS, (-32.0, -2.0, -42.0), (46.0, 11.0, 13.0)),
)
_GROUPS = ("heart", "stomach", "spleen", "kidney", "pancreas")
_RENAL_SINUS = ((52.0, -52.0, -66.0), (13.0, 9.0, 22.0))
_GALLBLADDER = ((36.0, 52.0, -46.0), (12.0, 20.0, 24.0))
# Cylinders along z, the same in everyone, and how deep under the skin they begin in mm: the muscles
# of the back reach out of the abdominal cavity.
_SPINE: tuple[tuple[Tissue, Vector, Vector, float], ...] = (
    (Tissue.MUSCLE, (33.0, -82.0, 0.0), (29.0, 17.0, np.inf), 4.0),
    (Tissue.MUSCLE, (-33.0, -82.0, 0.0), (29.0, 17.0, np.inf), 4.0),
    (Tissue.MARROW, (0.0, -60.0, 0.0), (21.0, 16.0, np.inf), 4.0),
    (Tissue.MARROW, (0.0, -84.0, 0.0), (15.0, 14.0, np.inf), 4.0),
    (Tissue.FLUID, (0.0, -80.0, 0.0), (9.0, 7.0, np.inf), 4.0),
    (Tissue.BLOOD, (-14.0, -34.0, 0.0), (10.5, 10.5, np.inf), WALL_MM),
)
# The two domes of the diaphragm: lung lies inside the chest wall and outside of both.
_DOMES = (((60.0, 0.0, -24.0), (90.0, 104.0, 106.0)), ((-56.0, 0.0, -30.0), (90.0, 104.0, 102.0)))


@dataclass(frozen=True)
class Organs:
    """How one patient's organs differ from the model's.

    Args:
        fat_mm: Thickness of the subcutaneous fat, mm.
        shifts_mm: `(groups, 3)` in mm.
        scales: `(groups,)`.
        bowel: Field whose bumps are bowel loops.
        gallbladder: What fills the gallbladder: bile with or without contrast agent.
    """

    fat_mm: float
    shifts_mm: Float64Array
    scales: Float64Array
    bowel: LatticeNoise
    gallbladder: Tissue


def draw_organs(rng: np.random.Generator) -> Organs:
    """Draw fat of 5-10 mm, shifts N(0, 4) mm (8 mm along z), scales N(1, .06): all ours."""
    return Organs(
        fat_mm=float(rng.uniform(5, 10)),
        shifts_mm=rng.normal(0, [4.0, 4.0, 8.0], (len(_GROUPS), 3)).clip(-14, 14),
        scales=rng.normal(1, 0.06, len(_GROUPS)).clip(0.85, 1.15),
        bowel=draw_lattice_noise(rng, 16.0, DOMAIN_LOW, DOMAIN_HIGH),
        gallbladder=Tissue.BILE if rng.random() < 0.6 else Tissue.FLUID,
    )


def surroundings(anatomy: Anatomy, organs: Organs, grid: Grid) -> TissueMap:
    """Tissue everywhere, as if there were no liver: `(nx, ny, nz)` uint8 codes of `Tissue`."""
    x, y, z = grid.mesh_mm()
    skin = body_distance(anatomy, x, y)  # (nx, ny, 1): the body is a cylinder
    tissue = np.full(grid.shape, Tissue.AIR, dtype=np.uint8)
    np.copyto(tissue, np.uint8(Tissue.FAT), where=skin < 0)
    np.copyto(
        tissue, np.uint8(Tissue.MUSCLE), where=(skin < -organs.fat_mm) & (skin > -WALL_MM)
    )  # fmt: skip
    # Ribs run down and forward around the chest: dark patches in the muscle of the wall.
    rib = np.cos((z - 0.5 * y) * np.float32(2 * np.pi / 26.0)) > 0.45
    bed = (skin < -(organs.fat_mm + 1.0)) & (skin > -(WALL_MM - 1.5)) & (y > -85)
    np.copyto(tissue, np.uint8(Tissue.MARROW), where=bed & rib)
    cavity = np.broadcast_to(skin < -WALL_MM, grid.shape)
    _paint_bowel(organs, grid, tissue, cavity)
    _paint_lung(grid, tissue, cavity)
    for group, kind, centre, semi in _ORGANS:
        index = _GROUPS.index(group)
        moved = np.add(centre, organs.shifts_mm[index])
        _paint(tissue, grid, moved, organs.scales[index] * np.asarray(semi), kind, skin)
    for kind, centre, semi, depth_mm in _SPINE:
        _paint(tissue, grid, centre, semi, kind, skin, depth_mm)
    hanging = (
        (RIGHT_KIDNEY, Tissue.KIDNEY),
        (_RENAL_SINUS, Tissue.FAT),
        (_GALLBLADDER, organs.gallbladder),
    )  # fmt: skip
    for (centre, semi), kind in hanging:
        _paint(tissue, grid, anatomy.place(centre), semi, kind, skin)
    cava = (CAVA_RADIUS_MM, 0.85 * CAVA_RADIUS_MM, np.inf)
    _paint(tissue, grid, (*anatomy.cava_mm, 0.0), cava, Tissue.BLOOD, skin)
    return tissue


def _paint(
    tissue: TissueMap,
    grid: Grid,
    centre: Any,
    semi: Any,
    kind: Tissue,
    skin: Any,
    depth_mm: float = WALL_MM,
) -> None:
    """Fill an ellipsoid where it lies at least `depth_mm` under the skin."""
    reach = np.minimum(semi, 1e4)  # a cylinder spans the whole grid
    box = grid.box(np.subtract(centre, reach), np.add(centre, reach))
    x, y, z = grid.crop(box).mesh_mm()
    (cx, cy, cz), (ax, ay, az) = (tuple(np.float32(v) for v in row) for row in (centre, semi))
    inside = ((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2 + ((z - cz) / az) ** 2 < 1
    np.copyto(tissue[box], np.uint8(kind), where=inside & (skin[box[:2]] < -depth_mm))


def _paint_bowel(organs: Organs, grid: Grid, tissue: TissueMap, cavity: Any) -> None:
    """Bowel loops in visceral fat below the stomach: walls like muscle, some with fluid."""
    box = grid.box((-1e4, -70.0, -1e4), (1e4, 1e4, 10.0))
    bumps = organs.bowel.on_grid(grid.crop(box))
    np.copyto(tissue[box], np.uint8(Tissue.BOWEL), where=cavity[box] & (bumps > 0.1))
    np.copyto(tissue[box], np.uint8(Tissue.STOMACH), where=cavity[box] & (bumps > 0.8))


def _paint_lung(grid: Grid, tissue: TissueMap, cavity: Any) -> None:
    """Lung between the chest wall and the domes of the diaphragm."""
    box = grid.box((-1e4, -1e4, -20.0), (1e4, 1e4, 1e4))
    x, y, z = grid.crop(box).mesh_mm()
    outside = cavity[box].copy()
    for centre, semi in _DOMES:
        (cx, cy, cz), (ax, ay, az) = (tuple(np.float32(v) for v in row) for row in (centre, semi))
        outside &= ((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2 + ((z - cz) / az) ** 2 > 1
    np.copyto(tissue[box], np.uint8(Tissue.LUNG), where=outside)
