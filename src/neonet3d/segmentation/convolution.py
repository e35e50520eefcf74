"""Convolutions that are right in bf16 on grids as short as their own kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ShortGridConv3d(nn.Conv3d):
    """A convolution in float32 where oneDNN's in bf16 is wrong on a CPU (torch 2.13).

    Two cases, found by comparing many small grids with float32 on two kinds of processor. Where the
    stride is 1 and the output has at least 2 voxels along the first axis but fewer than the kernel,
    the gradient of the weights is uninitialised memory (AVX-512). Where the output has one voxel
    along some axis, the output itself may be, and its gradients (AMX, strided convolutions above
    all). Such grids are tiny, so float32 costs nothing there.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self._wrong_in_bf16(x.shape[2:]):
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(x.device.type, enabled=False):
            return self._conv_forward(x.float(), self.weight.float(), bias)

    def _wrong_in_bf16(self, size: torch.Size) -> bool:
        if isinstance(self.padding, str):
            raise TypeError("the padding of a guarded convolution is a number of voxels")
        out = [
            (n + 2 * padding - kernel) // stride + 1
            for n, padding, kernel, stride in zip(
                size, self.padding, self.kernel_size, self.stride, strict=True
            )
        ]
        short = self.training and self.stride[0] == 1 and 2 <= out[0] < self.kernel_size[0]
        return short or 1 in out


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
