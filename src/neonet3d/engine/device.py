"""Where and in which precision to compute: decided once, from what the machine has."""

from __future__ import annotations

import logging
import os
import resource
import sys
from contextlib import AbstractContextManager
from functools import cache
from typing import Literal, TypeVar

import torch
from lightning_fabric import Fabric
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

SHORTEST_X = 3
"""Least voxels along the first axis of any grid that a 3x3x3 convolution trains on.

Shorter ones meet what ``segmentation/convolution.py`` describes; it guards NeoSeg's networks, and
the others keep off such grids.
"""

Precision = Literal["32-true", "bf16-mixed"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def cpu_has_fast_bf16() -> bool:
    """Whether oneDNN has native bf16 kernels here (AVX-512 BF16 or AMX).

    Without them bf16 is emulated and slower than float32, so it is never assumed.
    """
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def best_precision() -> Precision:
    """bf16 autocast where the hardware gains by it, float32 elsewhere."""
    if torch.cuda.is_available():
        return (
            "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
        )
    return "bf16-mixed" if cpu_has_fast_bf16() else "32-true"


def usable_cores() -> int:
    """That this process may use, where the system says it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_bytes() -> int:
    """Of this process so far; Linux counts kibibytes where macOS counts bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def world_size() -> int:
    """Processes that share a training, as ``torchrun`` says; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@cache
def fabric() -> Fabric:
    """The process's device: a GPU where there is one, otherwise the CPU.

    On the CPU the algorithms are deterministic, so that equal input gives equal bytes.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its precision
    if world_size() > 1:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        made = Fabric(
            accelerator="auto",
            strategy="ddp",
            devices=here,
            num_nodes=world_size() // here,
            precision=best_precision(),
        )
    else:
        made = Fabric(accelerator="auto", devices=1, precision=best_precision())
    made.launch()
    if made.device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # Otherwise every new tensor is filled with NaN first, which costs time and proves nothing.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return made


def channels_last(network: ModuleT) -> ModuleT:
    """Lay out the weights of convolutions channels last, which outputs follow.

    On grids that fit in a cache that is faster; results differ in the order of sums alone.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last_3d)
    return network


class OneDnnConv3d(nn.Conv3d):
    """A convolution that oneDNN computes, whatever its size.

    On a CPU torch (2.13) takes a path of its own for one small volume in float32, which is two to
    four times slower. Differs from that only in the order in which sums are rounded.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        assert not isinstance(self.padding, str)
        return torch.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )


def ready_for_inference(network: nn.Module) -> None:
    """The convolutions of a network that is used and no longer trained or saved, made fast.

    Where there is bf16, weights are as autocast would have them, once and for all: autocast keeps
    what it casts only for weights that are trained; frozen ones it would cast again at every call.
    Where there is none, oneDNN takes single patches too. Results are the same but for the order in
    which sums are rounded.
    """
    in_bf16, onednn = best_precision() == "bf16-mixed", torch.backends.mkldnn.is_available()
    for layer in network.modules():
        if not isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            continue
        layer.requires_grad_(False)
        if in_bf16:
            layer.bfloat16()
        elif onednn and isinstance(layer, nn.Conv3d) and max(layer.kernel_size) > 1:
            layer.__class__ = OneDnnConv3d
    channels_last(network)


def device_summary() -> str:
    """For manifests and reports, such as ``cpu, 2 threads, bf16-mixed``."""
    here = fabric()
    shared = f", {world_size()} processes" if world_size() > 1 else ""
    if here.device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads, {best_precision()}{shared}"
    return f"{torch.cuda.get_device_name(here.device)}, {best_precision()}{shared}"


def memory_bytes() -> int:
    """Of the device: a GPU's, or the machine's, whether it is free or not."""
    here = fabric()
    if here.device.type == "cuda":
        return int(torch.cuda.get_device_properties(here.device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@cache
def _thread_pools() -> ThreadpoolController:
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[object]:
    """NumPy's BLAS on one thread for a while.

    Its threads spin for some milliseconds after each product, on the cores that torch's threads
    want next; beside a network, small products in NumPy cost more than they take.
    """
    return _thread_pools().limit(limits=1, user_api="blas")
