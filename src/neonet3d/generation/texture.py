"""The texture profile: how much of each wavelet band an autoencoder takes from a scan.

What it takes is mostly acquisition noise, and that differs from scanner to scanner and from patient
to patient in level and in spectrum. Sixteen numbers say it: the logarithm of the spread of the
residual in each of the eight Haar bands, inside all classes of the mask and outside. A decoder that
knows them need not guess the scanner. That these sixteen are enough is our choice.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from neonet3d.generation.wavelet import haar
from neonet3d.types import LabelBatch

BANDS = 8
PROFILE = 2 * BANDS
QUIET = (
    0.5  # share of a region, the smoothest of it, in which the residual is noise and not anatomy
)
FEWEST = 50  # voxels of a region, at half the resolution
LEAST = 1e-4  # of a spread
TO_DEVIATION = 1.4826  # from the median absolute deviation of a normal distribution


def texture_profiles(
    images: Float[Tensor, "n x y z"],
    reconstructions: Float[Tensor, "n x y z"],
    label_maps: LabelBatch,
) -> Float[Tensor, "n 16"]:
    """Log spread of each band of image - reconstruction, inside the mask, then outside.

    Robust (median absolute deviation). A region that a case does not have gets the mean over the
    cases that have it; where none has, that of the other region.
    """
    residuals, plain = haar((images - reconstructions)[:, None]), haar(reconstructions[:, None])
    detail = plain[:, 1:].abs().sum(1, keepdim=True)
    detail = F.avg_pool3d(detail, 3, stride=1, padding=1, count_include_pad=False)[:, 0]
    share = F.avg_pool3d((label_maps > 0).float()[:, None], 2)[:, 0]
    rows = [
        torch.cat([_log_spread(residual, detail_, region) for region in (part == 1, part == 0)])
        for residual, detail_, part in zip(residuals, detail, share, strict=True)
    ]
    found = torch.stack(rows)
    inside, outside = usual = found.nanmean(0).view(2, BANDS)
    usual = usual.where(~usual.isnan(), torch.stack([outside, inside]))
    usual = usual.flatten().nan_to_num(math.log(LEAST))  # of patches too small for any region
    return torch.where(found.isnan(), usual, found)


def _log_spread(
    residual: Float[Tensor, "8 x y z"],
    detail: Float[Tensor, "x y z"],
    region: Bool[Tensor, "x y z"],
) -> Float[Tensor, " 8"]:
    if int(region.sum()) < FEWEST:
        return residual.new_full((BANDS,), torch.nan)
    quiet = residual[:, region & (detail <= detail[region].quantile(QUIET))]
    centred = quiet - quiet.median(1, keepdim=True).values
    return (TO_DEVIATION * centred.abs().median(1).values).clamp_min(LEAST).log()
