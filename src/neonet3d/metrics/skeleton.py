"""The centreline of a mask: thinned to one voxel, with its pieces, holes and branches kept.

Own code, since scikit-image's 3D ``skeletonize`` (like ITK's filter, after Lee et al. 1994) deletes
whole objects of an even width (scikit-image issue 3757), which would score a vessel as absent.
"""

from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from neonet3d.types import Triple

# The 26 neighbours of a voxel, and who among them touches whom.
STEPS = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])
_APART = np.abs(STEPS[:, None] - STEPS[None])
_N18 = np.abs(STEPS).sum(1) <= 2
_N6 = np.abs(STEPS).sum(1) == 1
TOUCH_26 = (_APART.max(2) <= 1).astype(np.float32)
TOUCH_6 = ((_APART.sum(2) == 1) & _N18[:, None] & _N18[None]).astype(np.float32)
N_PARITIES = 8


def skeletonise(mask: Bool[np.ndarray, "x y z"], spacing_mm: Triple) -> Bool[np.ndarray, "x y z"]:
    """Thin a mask to curves by taking away simple voxels, those nearest to the surface first.

    A voxel is simple when neither the pieces of the mask nor those of the background around it
    change without it, so that every piece keeps at least one voxel, and every ring its hole. The
    ends of curves stay, unless the curve goes deeper from there: that is a spur from the surface.
    Depth is in mm, so that the curve lies in the middle of the vessel and not of its voxels. Voxels
    of one parity do not touch and go at once.

    Source: Bertrand & Malandain, Pattern Recognit. Lett. 15 (1994) 169 for simple voxels; Bertrand
    & Aktouf, SPIE 2356 (1995) 113 for the subfields; Pudney, CVIU 72 (1998) 404 for the order.
    """
    if not mask.any():
        return np.zeros_like(mask)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    kept = np.pad(mask[box], 1)
    depth_mm: Float[np.ndarray, "x y z"] = np.asarray(
        ndimage.distance_transform_edt(kept, sampling=spacing_mm)
    )
    levels: Int[np.ndarray, " v"] = np.ceil(depth_mm.ravel() / min(spacing_mm) - 1e-6).astype(int)
    voxels = np.argwhere(kept)
    subfield = voxels % 2 @ np.array([4, 2, 1])
    places = np.asarray(np.ravel_multi_index(tuple(voxels.T), kept.shape))
    around = STEPS @ np.array([kept.shape[1] * kept.shape[2], kept.shape[2], 1])
    flat = kept.reshape(-1)
    stale = np.ones_like(flat)  # a voxel is looked at again when one beside it has gone
    for depth in range(1, int(levels.max()) + 1):
        here = flat[places] & (levels[places] <= depth)
        groups = [places[here & (subfield == parity)] for parity in range(N_PARITIES)]
        changed = True
        while changed:
            changed = False
            for group in groups:
                looked_at = group[flat[group] & stale[group]]
                stale[looked_at] = False
                beside = looked_at[:, None] + around
                neighbours = flat[beside]
                ends = (neighbours.sum(1) == 1) & (
                    (levels[beside] * neighbours).max(1) <= levels[looked_at]
                )
                gone = looked_at[~ends & _simple(neighbours)]
                flat[gone] = False
                stale[gone[:, None] + around] = True
                changed |= len(gone) > 0
    skeleton = np.zeros_like(mask)
    skeleton[box] = kept[1:-1, 1:-1, 1:-1]
    return skeleton


def _simple(neighbours: Bool[np.ndarray, "n 26"]) -> Bool[np.ndarray, " n"]:
    """Which voxels are simple, by their neighbourhoods."""
    simple = np.zeros(len(neighbours), bool)
    # One with background on no side is inside, and one without a neighbour is a piece of its own.
    surface = np.flatnonzero(~neighbours[:, _N6].all(1) & neighbours.any(1))
    mask = neighbours[surface]
    background = ~mask & _N18
    simple[surface] = _one_piece(mask, mask, TOUCH_26) & _one_piece(
        background, background & _N6, TOUCH_6
    )
    return simple


def _one_piece(
    nodes: Bool[np.ndarray, "n 26"],
    must_meet: Bool[np.ndarray, "n 26"],
    touch: Float[np.ndarray, "26 26"],
) -> Bool[np.ndarray, " n"]:
    """Whether those of the nodes that must meet are linked by the nodes, row by row."""
    first: Int[np.ndarray, " n"] = must_meet.argmax(1)
    reached = np.zeros_like(nodes)
    rows = np.arange(len(nodes))
    reached[rows, first] = must_meet[rows, first]
    n_reached = -1
    while n_reached != (n_reached := int(reached.sum())):
        reached |= nodes & (reached.astype(np.float32) @ touch > 0)
    met: Bool[np.ndarray, " n"] = ~(must_meet & ~reached).any(1)
    return met
