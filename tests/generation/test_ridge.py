from __future__ import annotations

import pytest
import torch

from neonet3d.generation.ridge import RidgeRegression, neighbourhood


def rows(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 5, generator=generator)
    noise = 0.1 * torch.randn(n, 2, generator=generator)
    return features, features @ torch.arange(10.0).view(5, 2) + noise


def test_without_penalty_it_is_least_squares() -> None:
    features, targets = rows(400, 0)
    regression = RidgeRegression(5, 2, penalty=0)
    for part in range(0, 400, 100):  # in parts, of any shape
        regression.add(
            features[part : part + 100].view(4, 25, 5), targets[part : part + 100].view(4, 25, 2)
        )
    expected = torch.linalg.lstsq(features, targets).solution
    torch.testing.assert_close(regression.solve(), expected, rtol=1e-4, atol=1e-4)
    assert regression.rows == 400


def test_the_penalty_is_a_share_of_the_rows() -> None:
    features, targets = rows(300, 1)
    once, thrice = RidgeRegression(5, 2, penalty=0.5), RidgeRegression(5, 2, penalty=0.5)
    once.add(features, targets)
    for _ in range(3):
        thrice.add(features, targets)
    torch.testing.assert_close(once.solve(), thrice.solve())
    gram = features.T @ features + 0.5 * 300 * torch.eye(5)
    expected = torch.linalg.solve(gram, features.T @ targets)
    torch.testing.assert_close(once.solve(), expected, rtol=1e-4, atol=1e-4)


def test_neighbours_of_a_voxel() -> None:
    x = torch.arange(2 * 4 * 4 * 4, dtype=torch.float32).view(1, 2, 4, 4, 4)
    around = neighbourhood(x)
    assert around.shape == (1, 4, 4, 4, 54)
    inner = around[0, 1, 2, 1].view(2, 3, 3, 3)
    assert torch.equal(inner, x[0, :, 0:3, 1:4, 0:3])
    corner = around[0, 0, 0, 0].view(2, 3, 3, 3)
    assert torch.equal(corner[:, 0, 0, 0], x[0, :, 0, 0, 0])  # the border is repeated
    assert torch.equal(corner[:, 2, 2, 2], x[0, :, 1, 1, 1])
    with pytest.raises(RuntimeError):
        neighbourhood(x[0, 0])
