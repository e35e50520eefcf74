"""Where and in which precision to compute: decided once, from what the machine has."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager
from functools import cache
from typing import Literal

import torch
from lightning_fabric import Fabric
from threadpoolctl import ThreadpoolController
from torch import nn

SHORTEST_X = 3
"""Least voxels along the first axis of any grid that a 3x3x3 convolution trains on.

Shorter ones meet what ``segmentation/convolution.py`` describes; it guards NeoSeg's networks, and
the others keep off such grids.
"""

Precision = Literal["32-true", "bf16-mixed"]


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


@cache
def fabric() -> Fabric:
    """The process's device: a GPU where there is one, otherwise the CPU.

    On the CPU the algorithms are deterministic, so that equal input gives equal bytes.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its precision
    made = Fabric(accelerator="auto", devices=1, precision=best_precision())
    made.launch()
    if made.device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # Otherwise every new tensor is filled with NaN first, which costs time and proves nothing.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return made


def cast_frozen(network: nn.Module) -> None:
    """Weights of convolutions and linear layers, as autocast would have them, once and for all.

    Autocast keeps what it casts only for weights that are trained; frozen ones it would cast again
    at every call. Convolutions are laid out channels last, which their outputs follow: on small
    grids that is faster. Results are those of autocast but for the order in which sums are rounded.
    For networks that are used and not saved.
    """
    if best_precision() != "bf16-mixed":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d | nn.Linear):
            layer.requires_grad_(False).bfloat16()
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.weight.data = layer.weight.data.to(memory_format=torch.channels_last_3d)


def device_summary() -> str:
    """For manifests and reports, such as ``cpu, 2 threads, bf16-mixed``."""
    here = fabric()
    if here.device.type == "cpu":
        return f"cpu, {torch.get_num_threads()} threads, {best_precision()}"
    return f"{torch.cuda.get_device_name(here.device)}, {best_precision()}"


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
