"""How patients differ in appearance, given their anatomy: a few factors, in closed form.

    r_i = F(m_i) sum_k a_ik W_k  +  rest

r_i is what the mean over patients leaves of patient i's latent (``anatomy.py``), F(m_i) the
features of that patient's label map, and a_ik how much patient i has of factor k: a brighter liver,
a tumour without a sharp margin, dark sleeves along the portal branches. An outcome label moves an
image this way, all over the place where its signs are, and a velocity loss hardly sees it, voxel by
voxel. The factors are fitted without the labels, as a regression of reduced rank whose coefficients
differ from patient to patient (alternating least squares). What the labels say is kept apart: a
patient that never was gets the amplitudes of a training case with the outcome asked for, from a
smoothed bootstrap (Silverman 1986, 6.4). Doing so in a latent flow is our choice.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neonet3d.errors import InputError

MOST_FACTORS = 12
CASES_A_FACTOR = 8  # at least; fewer cases than that have no factor
ROUNDS = 4  # of alternating least squares
SHRINKAGE = 0.3  # of a patient's own coefficients towards none, before the first round
PENALTY = 10.0  # on the squared weights of a factor, for each case
AMPLITUDE_PENALTY = 0.02  # as a share of the mean square of the factors' patterns
BANDWIDTH = 0.3  # of the bootstrap, in deviations of an outcome's cases

Amplitudes = Float[Tensor, "n k"]


def n_factors(n_cases: int) -> int:
    """How many factors so many training cases can tell apart."""
    return min(MOST_FACTORS, n_cases // CASES_A_FACTOR)


def fit_factors(
    grams: Float[Tensor, "n f f"], moments: Float[Tensor, "n f c"], n: int
) -> Float[Tensor, "k f c"]:
    """Alternating least squares for n factors, scaled so that amplitudes have unit variance.

    Args:
        grams, moments: F'F and F'r of each case, over its voxels.
    """
    n_features = grams.shape[1]
    penalty = PENALTY * len(grams) * torch.eye(n * n_features, dtype=torch.float64)
    # First the patients' own coefficients, shrunk; their principal directions. One by one: of a
    # batch, torch (2.13) factorises several at once, each with MKL's threads, and these wait for
    # each other for ever where ``torch.set_num_threads`` was called before.
    shrunk = SHRINKAGE * grams.mean(0) + PENALTY * torch.eye(n_features)
    own = torch.stack(
        [
            torch.linalg.solve(gram + shrunk, moment).flatten()
            for gram, moment in zip(grams, moments, strict=True)
        ]
    )
    left, values, _ = torch.linalg.svd(own - own.mean(0), full_matrices=False)
    amplitudes = _unit_variance(left[:, :n] * values[:n])[0]
    for _ in range(ROUNDS):
        gram = torch.einsum("ik,il,ifg->kflg", amplitudes, amplitudes, grams)
        moment = torch.einsum("ik,ifc->kfc", amplitudes, moments)
        solved = torch.linalg.solve(
            gram.reshape(len(penalty), -1).double() + penalty, moment.flatten(0, 1).double()
        )
        factors = solved.float().view(n, n_features, -1)
        amplitudes, scale = _unit_variance(
            solve_amplitudes(
                torch.einsum("kfc,ifg,lgc->ikl", factors, grams, factors),
                torch.einsum("kfc,ifc->ik", factors, moments),
            )
        )
        factors = factors * scale[:, None, None]
    return factors


def solve_amplitudes(grams: Float[Tensor, "n k k"], moments: Float[Tensor, "n k"]) -> Amplitudes:
    """Least squares of each case on the factors' patterns, with a small penalty.

    Args:
        grams, moments: of the patterns with themselves and with the residual, over the voxels.
    """
    size = grams.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp_min(1e-6)
    return torch.linalg.solve(
        grams + AMPLITUDE_PENALTY * size * torch.eye(grams.shape[1]).to(grams), moments
    )


def _unit_variance(amplitudes: Amplitudes) -> tuple[Amplitudes, Float[Tensor, " k"]]:
    scale = amplitudes.square().mean(0).sqrt().clamp_min(1e-6)
    return amplitudes / scale, scale


class AmplitudeBank(nn.Module):
    """Amplitudes of the training cases, from which those of new cases are drawn.

    Buffers: ``amplitudes`` (n, k); ``outcomes`` (n,), negative where unknown.
    """

    amplitudes: Tensor
    outcomes: Tensor

    def __init__(self, n_cases: int, n_factors: int) -> None:
        super().__init__()
        self.register_buffer("amplitudes", torch.zeros(n_cases, n_factors))
        self.register_buffer("outcomes", torch.full((n_cases,), -1, dtype=torch.long))

    def draw(
        self, outcomes: Int[Tensor, " b"], generator: torch.Generator, *, guidance: float = 1.0
    ) -> Amplitudes:
        """Amplitudes of new cases, on the bank's device.

        Args:
            outcomes: 0 or 1; negative for "not said", which draws from all training cases.
            generator: on the CPU.
            guidance: how far an outcome's mean lies from that of all cases; 1 as far as it does.

        Raises:
            InputError: an outcome that no training case has.
        """
        n, k = len(outcomes), self.amplitudes.shape[1]
        rank, noise = torch.rand(n, generator=generator), torch.randn(n, k, generator=generator)
        drawn, everyone = self.amplitudes.new_zeros(n, k), self.amplitudes.mean(0)
        for outcome in outcomes.unique().tolist():
            same = self.amplitudes[self._rows(outcome)]
            centre = same.mean(0)
            spread = (same - centre).square().mean(0).sqrt()
            where = (outcomes == outcome).nonzero()[:, 0]
            own = same[(rank[where] * len(same)).long().to(same.device)] - centre
            jitter = BANDWIDTH * spread * noise[where].to(same)
            moved = (1 - BANDWIDTH**2) ** 0.5 * own + jitter + (guidance - 1) * (centre - everyone)
            drawn[where.to(same.device)] = centre + moved
        return drawn

    def contrast(self, outcome: int) -> Float[Tensor, " k"]:
        """Mean amplitudes of an outcome over those of all cases; none where it is negative."""
        return self.amplitudes[self._rows(outcome)].mean(0) - self.amplitudes.mean(0)

    def _rows(self, outcome: int) -> Int[Tensor, " m"]:
        if outcome < 0:
            return torch.arange(len(self.outcomes))
        rows = (self.outcomes == outcome).nonzero()[:, 0]
        if len(rows) == 0:
            raise InputError(
                f"No training case of the generator has the outcome {outcome}, so it cannot draw "
                "one. Ask for the other, or train it on cases with both."
            )
        return rows
