"""The box that holds a mask: most of a scan is background, and need not be looked at."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool


def bounding_box(region: Bool[np.ndarray, "x y z"]) -> tuple[slice, slice, slice] | None:
    """The smallest box that holds a region; None for an empty one."""
    in_plane = np.any(region, axis=2)
    profiles = (in_plane.any(axis=1), in_plane.any(axis=0), np.any(region, axis=(0, 1)))
    x, y, z = (np.flatnonzero(profile) for profile in profiles)
    if not len(x):
        return None
    return slice(x[0], x[-1] + 1), slice(y[0], y[-1] + 1), slice(z[0], z[-1] + 1)
