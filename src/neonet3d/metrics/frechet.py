"""Frechet distance between two sets of features."""

import numpy as np
from jaxtyping import Float

from neonet3d.metrics.cases import Features, SyntheticFeatures, case_of_slice, check_widths


def frechet_distance(real: Features, synthetic: SyntheticFeatures) -> float:
    """Frechet distance of two Gaussians fitted to the features; FID where those are a network's.

    |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1^1/2 S2 S1^1/2)^1/2, in float64.

    The eigenvalues under the last root are the squared singular values of A B^T, where
    S1 = A^T A and S2 = B^T B, and A and B are the centred features over sqrt(n - 1). So the trace
    is the sum of those singular values: no matrix root, no small negative or complex part, right
    for n < d, and the cost goes with min(n, d).

    The estimate is biased upwards, more the fewer the samples: a value says nothing without its n,
    and must be read against ``fidelity.real_floor`` at the same n.

    Source: Dowson & Landau, J. Multivar. Anal. 12 (1982) 450; Heusel et al., NeurIPS 2017.

    Args:
        real: Features of real samples, ``[m, d]``.
        synthetic: SyntheticFeatures of synthetic samples, ``[k, d]``.

    Raises:
        InputError: Widths differ, a feature is not finite, or a side has under two rows.
    """
    check_widths(real, synthetic)
    case_of_slice(real, None, "real")
    case_of_slice(synthetic, None, "synthetic")
    shift = real.mean(axis=0, dtype=np.float64) - synthetic.mean(axis=0, dtype=np.float64)
    root_real, root_synthetic = _covariance_factor(real), _covariance_factor(synthetic)
    shared = np.linalg.svd(root_real @ root_synthetic.T, compute_uv=False).sum()
    spread = (root_real**2).sum() + (root_synthetic**2).sum()  # tr S1 + tr S2
    # Rounding can leave about -1e-16 x the traces for identical sets; a distance is not negative.
    return max(0.0, float(shift @ shift + spread - 2 * shared))


def _covariance_factor(features: Features) -> Float[np.ndarray, "p d"]:
    """A with A^T A = covariance and at most d rows."""
    values = features.astype(np.float64)
    centred: Float[np.ndarray, "m d"] = (values - values.mean(axis=0)) / np.sqrt(len(values) - 1)
    if centred.shape[0] <= centred.shape[1]:
        return centred
    return np.asarray(np.linalg.qr(centred, mode="r"))
