"""What the anatomy alone says of a latent, and how patients differ around that, in closed form.

    z = mu(m) + sigma(m) (sum_k a_k psi_k(m) + r)

with m the label map, a_k the patient's amplitudes (``appearance.py``) and r what the flow has to
generate. mu is a ridge regression of the latent on the label map around each latent voxel, plus the
mean of what that leaves at each place of the patch (all patches are cut alike); sigma is the spread
of what is left then, in each kind of place (dominant class, pure or mixed); psi_k = F(m) W_k are
the factors' patterns. The flow starts from an image that already has its organs where the mask has
them, looking as some patient's do, and generates the residual, as in corrective diffusion
(CorrDiff, Mardani et al. 2023, arXiv 2309.15214; there the mean is a trained network). It takes
seconds to fit; ``model.json`` says how much it explains. Using it in a mask-conditioned generator
is our choice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from neonet3d.generation.appearance import (
    AmplitudeBank,
    Amplitudes,
    fit_factors,
    n_factors,
    solve_amplitudes,
)
from neonet3d.generation.autoencoder import DOWNSAMPLING
from neonet3d.generation.controlnet import one_hot
from neonet3d.generation.ridge import RidgeRegression, neighbourhood
from neonet3d.generation.wavelet import haar
from neonet3d.types import LabelBatch, LabelSchema, LatentBatch, Shape

RIDGE = 1e-3  # of the number of voxels
PURE = 0.95  # a latent voxel filled this far by one class is pure
PRIOR_PATCHES = 20.0  # weight of zero in the mean at a place
PRIOR_VOXELS = 50.0  # weight of the overall spread in the spread of a rare kind of place
FOCUS = 9.0  # weight of the tumour and its surroundings when amplitudes are measured
FIT_BATCH = 32

Memberships = Float[Tensor, "b k x y z"]  # of the foreground classes, at full resolution
Features = Float[Tensor, "b x y z f"]


class AnatomyPrior(nn.Module):
    """Mean and spread of a standardised latent given the label map, and factors around the mean.

    Buffers: ``weight`` (features, c); ``place_mean`` (c, x, y, z); ``spread`` (2k, c), standard
    deviation in voxels dominated by class i, mixed at row i and pure at row k + i; ``factors``
    (factors, features, c).
    """

    weight: Tensor
    place_mean: Tensor
    spread: Tensor
    factors: Tensor

    def __init__(
        self, schema: LabelSchema, latent_channels: int, latent_shape: Shape, n_cases: int
    ) -> None:
        super().__init__()
        self.n_classes = len(schema)
        self.focus = schema.value("tumour") if "tumour" in schema else None
        n_features = 64 * (self.n_classes - 1) + 27 * self.n_classes + 1
        k = n_factors(n_cases)
        self.bank = AmplitudeBank(n_cases, k)
        self.register_buffer("weight", torch.zeros(n_features, latent_channels))
        self.register_buffer("place_mean", torch.zeros(latent_channels, *latent_shape))
        self.register_buffer("spread", torch.ones(2 * self.n_classes, latent_channels))
        self.register_buffer("factors", torch.zeros(k, n_features, latent_channels))

    @torch.no_grad()
    def fit(self, latents: LatentBatch, label_maps: LabelBatch) -> Float[Tensor, " c"]:
        """Least squares over latent voxels of the training fold, then the spread per place.

        Returns:
            Share of each channel's variance that the mean explains, on the same voxels.
        """
        regression = RidgeRegression(len(self.weight), latents.shape[1], penalty=RIDGE)
        for z, maps in self._parts(latents, label_maps):
            regression.add(self._features(one_hot(maps, self.n_classes)), z.movedim(1, -1))
        self.weight.copy_(regression.solve())

        left = torch.cat([z - self.mean(maps) for z, maps in self._parts(latents, label_maps)])
        self.place_mean.copy_(left.sum(0) / (len(left) + PRIOR_PATCHES))

        total = torch.zeros(self.spread.shape, dtype=torch.float64)
        count = torch.zeros(len(self.spread), 1, dtype=torch.float64)
        for z, maps in self._parts(latents, label_maps):
            square = (z - self.mean(maps)).square().movedim(1, -1).flatten(0, 3).double()
            place = _place(one_hot(maps, self.n_classes)).flatten()
            place = F.one_hot(place, len(self.spread)).double()
            total += place.T @ square
            count += place.sum(0)[:, None]
        overall = total.sum(0) / count.sum()
        variance = (total + PRIOR_VOXELS * overall) / (count + PRIOR_VOXELS)
        self.spread.copy_(variance.sqrt().clamp_min(1e-3))
        return (1 - overall / latents.var((0, 2, 3, 4)).double()).float()

    @torch.no_grad()
    def fit_factors(
        self, latents: LatentBatch, label_maps: LabelBatch, cases: Int[Tensor, " n"]
    ) -> None:
        """The factors around the mean, after ``fit``.

        Args:
            cases: of each row; positions of one case share its amplitudes.
        """
        if len(self.factors) == 0:
            return
        f, c = self.weight.shape
        n = int(cases.max()) + 1
        grams, moments = torch.zeros(n, f, f), torch.zeros(n, f, c)
        for rows in torch.arange(len(latents)).split(FIT_BATCH):
            maps = label_maps[rows]
            memberships = one_hot(maps, self.n_classes)
            features = self._features(memberships)
            r = self._centred(latents[rows], memberships, features).movedim(1, -1).flatten(1, 3)
            features = features.flatten(1, 3)
            weighted = features * self._importance(memberships).flatten(1)[..., None]
            grams.index_add_(0, cases[rows], weighted.transpose(1, 2) @ features)
            moments.index_add_(0, cases[rows], weighted.transpose(1, 2) @ r)
        seen = cases.unique()
        views = torch.bincount(cases, minlength=n)[seen].view(-1, 1, 1)
        self.factors.copy_(
            fit_factors(grams[seen] / views, moments[seen] / views, len(self.factors))
        )

    @torch.no_grad()
    def fill_bank(
        self, latents: LatentBatch, label_maps: LabelBatch, outcomes: Int[Tensor, " n"]
    ) -> None:
        """Measure every training case's amplitudes, after ``fit_factors``."""
        amplitudes = [self.explain(*part)[1] for part in self._parts(latents, label_maps)]
        self.bank.amplitudes.copy_(torch.cat(amplitudes))
        self.bank.outcomes.copy_(outcomes)

    def mean(self, label_maps: LabelBatch) -> LatentBatch:
        """mu(m)."""
        return self._mean(self._features(one_hot(label_maps, self.n_classes)))

    def explain(self, z: LatentBatch, label_maps: LabelBatch) -> tuple[LatentBatch, Amplitudes]:
        """The residual r of a latent and its own amplitudes a."""
        memberships = one_hot(label_maps, self.n_classes)
        features = self._features(memberships)
        return self._explained(self._centred(z, memberships, features), memberships, features)

    def centred(self, z: LatentBatch, label_maps: LabelBatch) -> tuple[LatentBatch, Amplitudes]:
        """(z - mu(m)) / sigma(m), all in which the patient differs, and the amplitudes in it."""
        memberships = one_hot(label_maps, self.n_classes)
        features = self._features(memberships)
        whole = self._centred(z, memberships, features)
        return whole, self._explained(whole, memberships, features)[1]

    def _explained(
        self, r: LatentBatch, memberships: Memberships, features: Features
    ) -> tuple[LatentBatch, Amplitudes]:
        patterns = torch.einsum("bxyzf,kfc->bkcxyz", features, self.factors)
        weighted = patterns * self._importance(memberships)[:, None, None]
        amplitudes = solve_amplitudes(
            torch.einsum("bkcxyz,blcxyz->bkl", weighted, patterns),
            torch.einsum("bkcxyz,bcxyz->bk", weighted, r),
        )
        return r - torch.einsum("bk,bkcxyz->bcxyz", amplitudes, patterns), amplitudes

    def residual(self, z: LatentBatch, label_maps: LabelBatch) -> LatentBatch:
        """r of ``explain``."""
        return self.explain(z, label_maps)[0]

    def restore(
        self, r: LatentBatch, label_maps: LabelBatch, amplitudes: Amplitudes
    ) -> LatentBatch:
        """z = mu(m) + sigma(m) (psi(m) a + r), the inverse of ``explain``."""
        memberships = one_hot(label_maps, self.n_classes)
        own = torch.einsum("bk,kfc->bfc", amplitudes, self.factors)  # each patient's coefficients
        both = torch.cat([self.weight.expand_as(own), own], dim=-1)
        # _features(memberships) @ both, whose table would take longer to write than to multiply.
        inside, around = haar(haar(memberships)), neighbourhood(_fractions(memberships))
        of_inside, of_around = both[:, : inside.shape[1]], both[:, inside.shape[1] : -1]
        seen = inside.flatten(2).mT @ of_inside + around.flatten(1, 3) @ of_around + both[:, -1:]
        mean, moved = seen.mT.unflatten(2, inside.shape[2:]).chunk(2, dim=1)
        return mean + self.place_mean + self._deviation(memberships) * (moved + r)

    def _centred(self, z: LatentBatch, memberships: Memberships, features: Features) -> LatentBatch:
        return (z - self._mean(features)) / self._deviation(memberships)

    def _mean(self, features: Features) -> LatentBatch:
        return (features @ self.weight).movedim(-1, 1) + self.place_mean

    def _deviation(self, memberships: Memberships) -> LatentBatch:
        return self.spread[_place(memberships)].movedim(-1, 1)

    def _importance(self, memberships: Memberships) -> Float[Tensor, "b u v w"]:
        """1, and ``FOCUS`` in latent voxels that touch a tumour or lie beside one."""
        if self.focus is None:
            return torch.ones_like(F.avg_pool3d(memberships[:, 0], DOWNSAMPLING))
        touched = F.max_pool3d(memberships[:, self.focus - 1], DOWNSAMPLING)
        return 1 + (FOCUS - 1) * F.max_pool3d(touched, 3, stride=1, padding=1)

    def _features(self, memberships: Memberships) -> Features:
        """Wavelets of the map inside each latent voxel; fractions of the classes around it; 1."""
        inside = haar(haar(memberships))
        around = neighbourhood(_fractions(memberships))
        ones = torch.ones_like(around[..., :1])
        return torch.cat([inside.movedim(1, -1), around, ones], dim=-1)

    @staticmethod
    def _parts(latents: Tensor, label_maps: Tensor) -> list[tuple[Tensor, Tensor]]:
        return list(zip(latents.split(FIT_BATCH), label_maps.split(FIT_BATCH), strict=True))


def _fractions(memberships: Memberships) -> Float[Tensor, "b k+1 u v w"]:
    """Share of each class in each latent voxel, background first."""
    foreground = F.avg_pool3d(memberships, DOWNSAMPLING)
    return torch.cat([1 - foreground.sum(1, keepdim=True), foreground], dim=1)


def _place(memberships: Memberships) -> Int[Tensor, "b u v w"]:
    """Row of ``spread`` for each latent voxel."""
    fraction, dominant = _fractions(memberships).max(1)
    return dominant + (memberships.shape[1] + 1) * (fraction >= PURE)
