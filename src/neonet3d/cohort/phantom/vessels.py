"""Portal and hepatic vein trees by greedy growth.

Terminals are scattered through the liver and joined, nearest to the root first, to the node that
costs least: distance plus a share of the path already travelled (ours, after space-colonisation
and minimum-spanning-tree models of vasculature). Radii follow a power law of flow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from neonet3d.cohort.phantom.grid import Float64Array, IntArray

# r_parent^m = sum r_child^m. Murray's minimum-work law has m = 3 [S]; casts of vessels measure
# 2.5-3, and 2.7 is the recipe's.
MURRAY_EXPONENT = 2.7
STEP_MM = 3.0  # node distance along a branch (recipe)
_PATH_WEIGHT = 0.3  # cost per mm of path to the root: keeps branches from running back (recipe)
_ORDER_JITTER_MM = 60.0  # far terminals sometimes come first: long, straight mains (recipe)
_TANGENT_SHARE = 0.35  # how far a branch follows its parent before it turns away (ours)


@dataclass(frozen=True)
class VesselTree:
    """A rooted tree of nodes `STEP_MM` apart; a parent always stands before its children.

    Args:
        positions_mm: `(n, 3)` in RAS+ mm.
        parent: `(n,)` index of the parent; -1 for the root.
        branch: `(n,)` number of the branch that a node was added with; 0 is the stem.
        terminal: `(n,)` 1 where a branch ends, else 0.
    """

    positions_mm: Float64Array
    parent: IntArray
    branch: IntArray
    terminal: IntArray

    def path_mm(self) -> Float64Array:
        """Distance from the root along the tree, `(n,)` in mm."""
        path = np.zeros(len(self.parent))
        for node, length in enumerate(self.segment_mm()):
            if node:
                path[node] = path[self.parent[node]] + length
        return path

    def segment_mm(self) -> Float64Array:
        """Distance to the parent, `(n,)` in mm; 0 for the root."""
        above = np.maximum(self.parent, 0)
        return np.asarray(np.linalg.norm(self.positions_mm - self.positions_mm[above], axis=1))


def stem(points_mm: Float64Array) -> VesselTree:
    """The trunk that a tree grows from: a polyline `(n, 3)` in mm, root first."""
    n = len(points_mm)
    parent = np.arange(n, dtype=np.int64) - 1
    nothing = np.zeros(n, dtype=np.int64)
    return VesselTree(np.asarray(points_mm, dtype=np.float64), parent, nothing, nothing.copy())


def grow_tree(tree: VesselTree, terminals_mm: Float64Array, rng: np.random.Generator) -> VesselTree:
    """Join every terminal to `tree`, which is not changed.

    Args:
        tree: What has grown so far; its last stem node is the place where branching starts.
        terminals_mm: `(k, 3)` in mm.
        rng: Source of the order's jitter.

    Returns:
        A tree whose first nodes are those of `tree`.
    """
    origin = tree.positions_mm[np.flatnonzero(tree.branch == 0)[-1]]
    order = np.linalg.norm(terminals_mm - origin, axis=1)
    order = np.argsort(order + rng.uniform(0, _ORDER_JITTER_MM, len(order)))
    capacity = len(tree.parent) + sum(
        int(np.linalg.norm(terminal - origin) * 2 / STEP_MM) + 4 for terminal in terminals_mm
    )
    positions, path = np.empty((capacity, 3)), np.full(capacity, np.inf)
    n = len(tree.parent)
    positions[:n], path[:n] = tree.positions_mm, tree.path_mm()
    # Nothing joins the trunk before it has reached the organ.
    trunk = np.flatnonzero(tree.branch == 0)[:-1]
    closed = np.zeros(capacity)
    closed[trunk] = np.inf
    parent, branch = tree.parent.tolist(), tree.branch.tolist()
    terminal_flags = tree.terminal.tolist()
    next_branch = max(branch) + 1
    for terminal in terminals_mm[order]:
        distance = np.linalg.norm(positions[:n] - terminal, axis=1)
        node = int(np.argmin(distance + _PATH_WEIGHT * path[:n] + closed[:n]))
        curve = _bezier(positions, parent, node, terminal)
        last = node
        for point in curve:
            positions[n] = point
            path[n] = path[last] + float(np.linalg.norm(point - positions[last]))
            parent.append(last)
            branch.append(next_branch)
            terminal_flags.append(0)
            last, n = n, n + 1
        terminal_flags[last] = 1
        next_branch += 1
    return VesselTree(
        positions[:n].copy(),
        np.asarray(parent, dtype=np.int64),
        np.asarray(branch, dtype=np.int64),
        np.asarray(terminal_flags, dtype=np.int64),
    )


def _bezier(
    positions: Float64Array, parent: list[int], node: int, terminal: Float64Array
) -> Float64Array:
    """Quadratic Bezier from a node to a terminal that leaves along the parent branch, `(k, 3)`."""
    start = positions[node]
    chord = terminal - start
    length = float(np.linalg.norm(chord))
    if length < 1e-6:
        return np.zeros((0, 3))
    tangent = chord / length
    if parent[node] >= 0:
        along = start - positions[parent[node]]
        tangent = tangent + along / max(float(np.linalg.norm(along)), 1e-6)
    control = start + _TANGENT_SHARE * length * tangent / max(float(np.linalg.norm(tangent)), 0.3)
    steps = max(1, round(length / STEP_MM))
    t = (np.arange(1, steps + 1) / steps)[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * terminal)


def murray_radii(tree: VesselTree, root_radius_mm: float) -> Float64Array:
    """Radius at every node, `(n,)` in mm: r = r_root (terminals downstream / all)^(1/2.7).

    Flow is shared equally by the terminals, so at every fork r^2.7 adds up (Murray 1926, with the
    exponent `MURRAY_EXPONENT`).
    """
    flow = tree.terminal.astype(np.float64)
    for node in range(len(flow) - 1, 0, -1):
        flow[tree.parent[node]] += flow[node]
    if flow[0] == 0:
        raise ValueError("The tree has no terminal: grow it before asking for radii.")
    return np.asarray(root_radius_mm * (flow / flow[0]) ** (1 / MURRAY_EXPONENT))


def distance_along_tree(tree: VesselTree, sources: IntArray) -> Float64Array:
    """Shortest way along the vessels from any of `sources`, `(n,)` in mm; inf without a source."""
    n = len(tree.parent)
    if len(sources) == 0:
        return np.full(n, np.inf)
    child = np.arange(1, n)
    # scipy reads a stored zero as "no edge": two nodes at one place are still joined.
    length = np.maximum(tree.segment_mm()[1:], 1e-9)
    graph = coo_array((length, (child, tree.parent[1:])), shape=(n, n)).tocsr()
    distance = dijkstra(graph, directed=False, indices=sources, min_only=True)
    return np.asarray(distance, dtype=np.float64)


def downstream(tree: VesselTree, sources: IntArray) -> IntArray:
    """Nodes that are fed through one of `sources`, without the sources themselves."""
    marked = np.zeros(len(tree.parent), dtype=bool)
    marked[sources] = True
    fed = marked.copy()
    for node in range(1, len(fed)):
        fed[node] |= fed[tree.parent[node]]
    return np.flatnonzero(fed & ~marked)


def with_midpoints(
    tree: VesselTree, *values: Float64Array
) -> tuple[Float64Array, tuple[Float64Array, ...]]:
    """Nodes and the midpoints to their parents: balls 1.5 mm apart that merge into tubes.

    Args:
        tree: The tree.
        *values: Arrays `(n,)` that belong to the nodes. A midpoint takes its child's value, so that
            a thin side branch does not begin with a ball of its parent's width.

    Returns:
        Positions `(2 n - 1, 3)` in mm and the values at these positions.
    """
    middle = (tree.positions_mm[1:] + tree.positions_mm[tree.parent[1:]]) / 2
    positions = np.concatenate([tree.positions_mm, middle])
    return positions, tuple(np.concatenate([value, value[1:]]) for value in values)
