"""How alike the volumes of one set are to each other: MS-SSIM between pairs."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from monai.metrics.regression import compute_ms_ssim
from torch import Tensor

from neonet3d.errors import InputError
from neonet3d.metrics.interval import Interval, check_resamples, percentile_ends

WEIGHTS = (0.0448, 0.2856, 0.3001)  # of the three finest scales (Wang et al.), scaled to sum to 1
LARGEST_WINDOW = 7  # voxels
WINDOW_SIGMA = 1.5  # voxels
PARTNERS = 2
PAIRS_AT_ONCE = 16
CONFIDENCE = 0.95


def pairwise_ms_ssim(
    volumes: Float[Tensor, "n x y z"],
    seed: int,
    *,
    data_range: float = 2.0,
    partners: int = PARTNERS,
    n_resamples: int = 2000,
) -> Interval:
    """Mean 3D MS-SSIM between pairs of volumes of one set; lower is more diverse.

    1 means that all are the same volume. It says nothing of realism: noise is diverse. So it
    stands beside the value of real volumes on the same grid, which is what a generator should
    reach; a higher one means that the draws collapse onto fewer.

    Three scales, since five do not fit a patch, with the published weights of the three finest.
    The Gaussian window is as wide along each axis as the coarsest scale allows, at most 7 voxels
    (MONAI asks for a quarter of the axis), in voxels whatever the spacing: values of different
    grids do not compare. Both are our choices.

    Not every pair is measured: the volumes are put into a random ring and each is paired with the
    next ``partners`` of it, so that all volumes count alike. The interval is a percentile bootstrap
    over volumes; a volume drawn twice is not paired with itself.

    Source: Wang, Simoncelli & Bovik, Asilomar 2003 (MS-SSIM); Kwon, Han & Kim, MICCAI 2019
    (between pairs of 3D volumes, as diversity); MONAI's ``compute_ms_ssim``.

    Args:
        volumes: Intensities within ``data_range`` of each other, ``[n, x, y, z]``.
        seed: Seed of the ring and of the resampling.
        data_range: Largest intensity minus smallest that there can be.
        partners: Pairs that each volume begins.
        n_resamples: Number of bootstrap samples.

    Returns:
        The interval; ``n`` is the number of volumes.

    Raises:
        InputError: Under three volumes, an axis under four voxels, or a voxel that is not finite.
    """
    check_resamples(n_resamples)
    n, shape = len(volumes), tuple(volumes.shape[1:])
    if n < 3 or min(shape) < 4:
        raise InputError(
            f"There are {n} volumes of {shape} voxels, but MS-SSIM between pairs needs at least 3 "
            "volumes of at least 4 voxels along each axis. Add cases, or take larger patches."
        )
    if not bool(torch.isfinite(volumes).all()):
        raise InputError("A volume holds a voxel that is not finite. Look at its image first.")
    pairs = _ring(n, partners, np.random.default_rng(seed))
    weights = np.array(WEIGHTS) / sum(WEIGHTS)
    values = []
    with torch.inference_mode():
        for part in torch.from_numpy(pairs).split(PAIRS_AT_ONCE):
            values.append(
                compute_ms_ssim(
                    volumes[part[:, 0], None].float(),
                    volumes[part[:, 1], None].float(),
                    spatial_dims=3,
                    data_range=data_range,
                    kernel_size=[_window(size) for size in shape],
                    kernel_sigma=WINDOW_SIGMA,
                    weights=weights.tolist(),
                )[:, 0].cpu()
            )
    of_pair = torch.cat(values).double().numpy()

    rng = np.random.default_rng([seed, 1])
    counts = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
    drawn = (counts[:, pairs[:, 0]] * counts[:, pairs[:, 1]]).astype(float)
    held = drawn.sum(axis=1) > 0  # in a handful of volumes a resample may hold no pair of the ring
    draws = (drawn[held] @ of_pair) / drawn[held].sum(axis=1)
    low, high = percentile_ends(draws, CONFIDENCE)
    method = f"bootstrap over volumes, {len(pairs)} pairs, {n_resamples} resamples, 95%"
    return Interval(float(of_pair.mean()), low, high, n, None, method)


def _ring(n: int, partners: int, rng: np.random.Generator) -> Int[np.ndarray, "p 2"]:
    """Pairs of each volume with the next ones of a random ring, none of them twice."""
    order = rng.permutation(n)
    steps = range(1, min(partners, (n - 1) // 2) + 1)
    return np.concatenate([np.stack([order, np.roll(order, -step)], axis=1) for step in steps])


def _window(size: int) -> int:
    """The widest odd window that MONAI takes for three scales of this axis."""
    widest = min(LARGEST_WINDOW, size // (len(WEIGHTS) - 1) ** 2)
    return widest - (widest + 1) % 2
