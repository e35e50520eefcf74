"""Convolutions that train rightly in bf16 on grids as short as their own kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ShortGridConv3d(nn.Conv3d):
    """A convolution in float32 where oneDNN's bf16 gradient of the weights is wrong.

    With torch 2.13 on a CPU that gradient is uninitialised memory when the stride is 1 and the
    output has at least 2 voxels along the first axis but fewer than the kernel (12 of 12 trials;
    none at 1 voxel, none from the kernel's length on). Such grids are tiny, so float32 costs
    nothing there. What the convolution gives is right, so nothing changes once it is trained.
    """

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[2]
        if self.training and self.stride[0] == 1 and 2 <= n < self.kernel_size[0]:
            with torch.autocast(x.device.type, enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def guard_short_grids(network: nn.Module) -> None:
    """Put ``ShortGridConv3d`` in the place of every ``Conv3d``; the weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = ShortGridConv3d


def norm_by_instance(module: nn.Module) -> None:
    """Instance norms in the place of batch norms: any batch size, no running statistics."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm3d):
            setattr(module, name, nn.InstanceNorm3d(child.num_features, affine=True))
        else:
            norm_by_instance(child)
