"""Band calibration: in each class, as much of each wavelet band as training scans have.

Flow and decoders are each nearly right, and small errors add up: a vein's edge a tenth too sharp,
an organ a tenth too smooth. A linear classifier that sees a hundred patches finds them. They are
measured on the training fold and taken off, in closed form: in the region of class k,

    haar(image)_f  ->  m + shift_kf + gain_kf (haar(image)_f - m),    m the region's own mean,

where gain makes the spread, and shift the mean, of a band what it is in training scans *on average
over patients* (logarithms for the spread). What differs from draw to draw stays. A block on a
border belongs to both classes and is moved by either, so what is calibrated is measured again.
Having it is our choice; for what it can and cannot say of a two-sample test on the same statistics,
see the docs.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.generation.controlnet import one_hot
from neonet3d.generation.region_features import AT_ONCE, band_statistics
from neonet3d.generation.texture import BANDS
from neonet3d.generation.wavelet import haar, haar_inverse
from neonet3d.types import ImageBatch, LabelBatch

ROUNDS = 2  # more bring the statistics little nearer on other patients, and KID up
LARGEST_GAIN = 2.0  # and the least is its inverse: what is further off is no small error


class BandCalibration(nn.Module):
    """Gains and shifts by class and band; unfitted it is the identity.

    Buffers: ``gain`` and ``shift`` (classes, 8), background first.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.register_buffer("gain", torch.ones(n_classes, BANDS))
        self.register_buffer("shift", torch.zeros(n_classes, BANDS))

    @torch.no_grad()
    def fit(
        self,
        made: Float[Tensor, "n x y z"],
        maps: LabelBatch,
        real: Float[np.ndarray, "m k 16"],
    ) -> None:
        """Measure both buffers; a class that either side lacks is left as it is.

        Args:
            made: what was made for the training masks ``maps``, uncalibrated; on the CPU.
            real: ``region_features.band_statistics`` of the training scans.
        """
        here = self.gain.device
        parts = list(zip(made[:, None].split(AT_ONCE), maps.split(AT_ONCE), strict=True))
        wanted_mean, wanted_log = _averages(real)
        for _ in range(ROUNDS):
            moved = torch.cat([self(x.to(here), m.to(here))[:, 0].cpu() for x, m in parts])
            mean, log = _averages(band_statistics(moved, maps, self.n_classes))
            self.shift.add_(torch.from_numpy(wanted_mean - mean).nan_to_num(0.0).to(self.shift))
            gain = torch.from_numpy(wanted_log - log).nan_to_num(0.0).exp().to(self.gain)
            self.gain.mul_(gain).clamp_(1 / LARGEST_GAIN, LARGEST_GAIN)

    def forward(self, images: ImageBatch, maps: LabelBatch) -> ImageBatch:
        """The calibrated patches, float32; a block between classes is moved by its share of each.

        Args:
            images: with their detail, in [-1, 1].
        """
        bands = haar(images.float())
        members = one_hot(maps, self.n_classes)
        outside = 1 - members.sum(1, keepdim=True)
        share = F.avg_pool3d(torch.cat([outside, members], dim=1), 2)
        with torch.autocast(images.device.type, enabled=False):
            total = torch.einsum("bkxyz,bfxyz->bkf", share, bands)
            mean = total / share.sum((2, 3, 4))[..., None].clamp_min(1)
            centre = torch.einsum("bkxyz,bkf->bfxyz", share, mean)
            moved = torch.einsum("bkxyz,bkf->bfxyz", share, mean + self.shift)
            gain = torch.einsum("bkxyz,kf->bfxyz", share, self.gain)
        return haar_inverse(moved + gain * (bands - centre)).clamp(-1, 1)


def _averages(
    statistics: Float[np.ndarray, "n k 16"],
) -> tuple[Float[np.ndarray, "k 8"], Float[np.ndarray, "k 8"]]:
    """Of the means of each band, and of the logarithms of its spread, over cases."""
    spread = np.log(statistics[..., BANDS:].clip(1e-6))
    return _mean_over_cases(statistics[..., :BANDS]), _mean_over_cases(spread)


def _mean_over_cases(x: Float[np.ndarray, "n k 8"]) -> Float[np.ndarray, "k 8"]:
    """Of the cases that have the class; nan where none has."""
    known = np.isfinite(x)
    counts = known.sum(0)
    with np.errstate(invalid="ignore"):
        return np.where(known, x, 0.0).sum(0) / np.where(counts, counts, np.nan)
