"""The velocity that would be exact if latents were a stationary Gaussian field.

With cosine coefficients z_f of variance S_f, independent of each other, the rectified path has

    E[e - z | x_t] = (t - (1 - t) S_f) / ((1 - t)^2 S_f + t^2)  x_f

coefficient by coefficient (the Wiener filter). The flow U-Net adds to this closed form instead of
learning it: the samples of an untrained network already have the power spectrum of the training
latents, smooth where those are smooth. S is measured on the training fold.

Its ODE has a closed form too. With q(t) = (1 - t)^2 S + t^2, the deviation of x_t squared,

    dx/dt = v_gauss(x, t) + f   =>   x_s = sqrt(q(s) / q(t)) x_t + sqrt(q(s)) (A(s) - A(t)) f

for a constant f, where A(t) = asinh(((S + 1) t - S) / sqrt(S)) / sqrt(S + 1) is the integral of
1 / sqrt(q). ``step`` is that: an exponential integrator (Hochbruck & Ostermann 2010), which makes
no error on the Gaussian part however long the step.

For S = 1 it is the preconditioning of Karras et al. 2022 (arXiv 2206.00364) carried over to the
rectified path; the extension to a spectrum is ours.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neonet3d.types import LatentBatch, Shape


def cosine_matrix(n: int) -> Float[Tensor, "n n"]:
    """Orthonormal DCT-II: row f holds the cosine of frequency f. Its transpose is its inverse."""
    position = torch.arange(n, dtype=torch.float64) + 0.5
    frequency = torch.arange(n, dtype=torch.float64)[:, None]
    matrix = torch.cos(math.pi / n * frequency * position) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


class GaussianVelocity(nn.Module):
    """Closed-form velocity of a stationary Gaussian field on a latent grid.

    Buffer ``variance`` (c, x, y, z): of each cosine coefficient of each standardised channel.
    """

    variance: Tensor

    def __init__(self, channels: int, shape: Shape) -> None:
        super().__init__()
        self.register_buffer("variance", torch.ones(channels, *shape))
        for axis, n in zip("xyz", shape, strict=True):
            self.register_buffer(f"cosine_{axis}", cosine_matrix(n), persistent=False)

    @torch.no_grad()
    def fit(self, latents: Float[Tensor, "n c x y z"]) -> None:
        """Measure the variance of every coefficient over the training latents."""
        total = torch.zeros_like(self.variance)
        for part in latents.split(64):
            total += self._transform(part.to(total)).square().sum(0)
        self.variance.copy_((total / len(latents)).clamp_min(1e-4))

    def forward(self, x: LatentBatch, t: Float[Tensor, " b"]) -> LatentBatch:
        t = t.view(-1, 1, 1, 1, 1)
        gain = (t - (1 - t) * self.variance) / ((1 - t).square() * self.variance + t.square())
        return self._transform(gain * self._transform(x), inverse=True)

    def step(
        self,
        x: LatentBatch,
        excess: LatentBatch,
        now: Float[Tensor, ""],
        after: Float[Tensor, ""],
    ) -> LatentBatch:
        """From t = ``now`` to ``after`` along v_gauss + ``excess``, exact for a constant excess."""
        s = self.variance
        of_x, of_excess = self._transform(torch.cat([x, excess.to(x.dtype)])).chunk(2)
        kept = (self._deviation(after) / self._deviation(now)) * of_x
        a, b = (torch.asinh(((s + 1) * t - s) / s.sqrt()) / (s + 1).sqrt() for t in (now, after))
        gained = self._deviation(after) * (b - a) * of_excess
        return self._transform(kept + gained, inverse=True)

    def _deviation(self, t: Float[Tensor, ""]) -> Float[Tensor, "c x y z"]:
        return ((1 - t).square() * self.variance + t.square()).sqrt()

    def _transform(self, x: Tensor, *, inverse: bool = False) -> Tensor:
        matrices = (self.cosine_x, self.cosine_y, self.cosine_z)
        with torch.autocast(x.device.type, enabled=False):
            for axis, matrix in zip((2, 3, 4), matrices, strict=True):
                matrix = matrix.T if inverse else matrix
                x = torch.tensordot(x.float(), matrix, dims=([axis], [1])).movedim(-1, axis)
        return x
