"""What perineural invasion (PNI) is in the phantom, and which signs of it the image shows.

A latent severity z decides both: y ~ Bernoulli(sigmoid(2.6 z - 1.28)), and five signs
a_k = rho_k z + sqrt(1 - rho_k²) e_k. A classifier sees the signs only, so P(y = 1 | z) is a ceiling
that it cannot pass. Numbers: recipe, calibrated to a ceiling AUC of .90 and a prevalence of .34
(published: 28-44 % [S]).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from neonet3d.cohort.phantom.grid import Float64Array, IntArray
from neonet3d.cohort.phantom.vessels import VesselTree, distance_along_tree, downstream

_SLOPE, _INTERCEPT = 2.6, -1.28
# Correlation of each sign with the severity (recipe). Hilum and size are weak on purpose: neither
# location nor volume may be a shortcut.
CORRELATION = {"cuff": 0.92, "margin": 0.88, "duct": 0.70, "hilum": 0.25, "size": 0.12}

_TOUCH_MM = 3.0  # a portal node this close to the tumour's surface is a source of spread (ours)
_DUCT_REACH_MM = 40.0  # dilation is followed this far upstream of the obstruction (recipe)


@dataclass(frozen=True)
class Invasion:
    """Severity, label and signs of one patient; the signs are standard normal.

    Args:
        severity: z.
        probability: P(y = 1 | z).
        pni: y, 0 or 1.
        cuff: Sign of spread along the Glisson sheath.
        margin: Sign of an ill-defined tumour margin.
        duct: Sign of dilated bile ducts.
        hilum: Sign of closeness to the hilum.
        size: Sign of a smaller tumour.
    """

    severity: float
    probability: float
    pni: int
    cuff: float
    margin: float
    duct: float
    hilum: float
    size: float


def pni_probability(severity: float) -> float:
    """P(y = 1 | z), Bayes' best prediction of PNI for a severity z (standard normal), 0-1."""
    return float(expit(_SLOPE * severity + _INTERCEPT))


def draw_invasion(rng: np.random.Generator) -> Invasion:
    """Draw severity, label and signs of one patient."""
    severity = float(rng.standard_normal())
    probability = pni_probability(severity)
    pni = int(rng.random() < probability)
    noise = rng.standard_normal(len(CORRELATION))
    signs = {
        name: float(rho * severity + np.sqrt(1 - rho**2) * e)
        for (name, rho), e in zip(CORRELATION.items(), noise, strict=True)
    }
    return Invasion(severity=severity, probability=probability, pni=pni, **signs)


@dataclass(frozen=True)
class Spread:
    """What the invasion does to the image around the tumour.

    Args:
        cuff_peak: Greatest loss of liver uptake beside an invaded portal branch, 0-1.
        cuff_length_mm: Distance along the tree over which the cuff fades.
        cuff_width_mm: Thickness of the cuff.
        margin_mm: How far tongues of tumour reach into the liver.
        duct_radius_mm: Radius of dilated ducts; 0 without dilation.
    """

    cuff_peak: float
    cuff_length_mm: float
    cuff_width_mm: float
    margin_mm: float
    duct_radius_mm: float


def draw_spread(rng: np.random.Generator, invasion: Invasion) -> Spread:
    """Draw how the signs of a patient show (recipe, "Label and signs")."""
    length = rng.uniform(16, 34) * (0.7 + 0.6 * expit(1.5 * invasion.cuff))
    width = rng.uniform(3.5, 6)
    dilated = rng.random() < expit(-1.2 + 1.8 * invasion.duct)
    # 3-6 mm wide; beyond 3 mm an intrahepatic duct counts as dilated. (The recipe's 2-4 mm does not
    # say whether it is a width or a radius; this lies between the two.)
    radius = 1.5 + 1.5 * rng.beta(2, 2)
    return Spread(
        cuff_peak=float(0.95 * expit(3.6 * (invasion.cuff - 0.3))),
        cuff_length_mm=float(length),
        cuff_width_mm=float(width),
        margin_mm=float(0.6 + 5.4 * expit(3.3 * (invasion.margin - 0.2))),
        duct_radius_mm=float(radius) if dilated else 0.0,
    )


@dataclass(frozen=True)
class Cuff:
    """Loss of uptake around the nodes of the portal tree.

    Args:
        along_mm: Distance from the tumour along the tree, `(n,)` in mm.
        amplitude: Loss of uptake at the vein's surface, `(n,)`, 0-1.
    """

    along_mm: Float64Array
    amplitude: Float64Array


def touching(tumour_distance_mm: Float64Array) -> IntArray:
    """Portal nodes in or at the tumour, from their distance to it `(n,)`; at least the nearest."""
    near = np.flatnonzero(tumour_distance_mm < _TOUCH_MM)
    return near if len(near) else np.array([int(np.argmin(tumour_distance_mm))])


def draw_cuff(
    rng: np.random.Generator, portal: VesselTree, sources: IntArray, spread: Spread
) -> Cuff:
    """Draw the cuff at every portal node: A exp(-(s / L)²) x patch, or the branch's own edema.

    s is the distance from the tumour along the tree. The patches (moving means of seven uniforms)
    break the cuff up. Every branch of every patient also has some edema of its own, min(Exp(.06),
    .4), so that a cuff far from the tumour means nothing.

    Args:
        rng: Source of patches and edema.
        portal: The portal tree, `n` nodes.
        sources: Nodes at the tumour, see `touching`.
        spread: Peak and length.
    """
    n = len(portal.parent)
    along = distance_along_tree(portal, sources)
    mean = np.convolve(rng.random(n + 6), np.full(7, 1 / 7), mode="valid")
    patch = np.clip(0.5 + 3 * (mean - 0.5), 0.1, 1.3)
    edema = np.minimum(rng.exponential(0.06, int(portal.branch.max()) + 1), 0.4)[portal.branch]
    amplitude = spread.cuff_peak * np.exp(-((along / spread.cuff_length_mm) ** 2)) * patch
    return Cuff(along, np.clip(np.maximum(amplitude, edema), 0, 1))


def duct_course(
    rng: np.random.Generator,
    portal: VesselTree,
    portal_radii_mm: Float64Array,
    sources: IntArray,
    along_mm: Float64Array,
    duct_radius_mm: float,
) -> tuple[Float64Array, Float64Array]:
    """Dilated ducts beside the portal branches that the tumour cuts off from the hilum.

    Bile flows towards the hilum, so what lies downstream of the tumour for portal blood lies
    upstream of it for bile, and dilates. A duct keeps to one side of its vein and tapers to half
    its width at 40 mm.

    Args:
        rng: Draws the side.
        portal: The portal tree, `n` nodes.
        portal_radii_mm: `(n,)` in mm.
        sources: Nodes at the tumour.
        along_mm: Distance from the tumour along the tree, `(n,)` in mm.
        duct_radius_mm: Radius at the tumour in mm; 0 for none.

    Returns:
        Centres `(k, 3)` and radii `(k,)` of balls in mm that make the tubes.
    """
    side = rng.standard_normal(3)
    nodes = downstream(portal, sources)
    nodes = nodes[along_mm[nodes] <= _DUCT_REACH_MM]
    if duct_radius_mm == 0 or len(nodes) == 0:
        return np.zeros((0, 3)), np.zeros(0)
    radius = duct_radius_mm * (1 - 0.5 * along_mm[nodes] / _DUCT_REACH_MM)
    along = portal.positions_mm[nodes] - portal.positions_mm[portal.parent[nodes]]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-6)
    across = side - along * (along @ side)[:, None]
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    centres = portal.positions_mm[nodes] + across * (portal_radii_mm[nodes] + radius)[:, None]
    # Balls are a node step apart; a ball half a step back closes the tube.
    back = centres - along * (0.5 * np.linalg.norm(
        portal.positions_mm[nodes] - portal.positions_mm[portal.parent[nodes]], axis=1
    ))[:, None]  # fmt: skip
    return np.concatenate([centres, back]), np.concatenate([radius, radius])
