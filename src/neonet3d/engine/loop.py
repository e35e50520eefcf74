"""The one training loop: set-up, start or resume, steps, done.

The randomness of step k is a function of (seed, k) alone: batches come from a generator seeded
with both, and so do noise and dropout, which each of several processes draws for its own part. A
resumed loop therefore needs weights, averages and optimiser moments, but no state of a random
number generator, and ends in the same bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from neonet3d.config import LoopConfig
from neonet3d.engine.artefact import load_training_state, save_training_state
from neonet3d.engine.device import fabric
from neonet3d.engine.log import append_record, forget_steps
from neonet3d.engine.progress import progress
from neonet3d.engine.ranks import mean_over_processes, part_of_batch
from neonet3d.engine.stopping import EarlyStopping
from neonet3d.errors import RunError

CHECKPOINT_SECONDS = 15.0  # between two checkpoints that are written in
QUICK_SECONDS = 0.5  # or less; the state of a large network is a gigabyte, and waits in proportion
OF_A_PROCESS = 179_424_673  # between seeds of processes that train together; a CPU knows 32 bits
GRADIENT_CLIP = 1.0
FINAL_LEARNING_RATE = 0.02  # of the peak, at the end of the cosine

ModuleT = TypeVar("ModuleT", bound=nn.Module)
DrawBatch = Callable[[torch.Generator], Sequence[Tensor]]


def step_seed(seed: int, step: int) -> int:
    """A seed for one step; consecutive seeds of consecutive runs do not share steps."""
    return (seed * 1_000_003 + step) % (2**63)


def seeded(seed: int, build: Callable[[], ModuleT]) -> ModuleT:
    """A freshly initialised network whose weights are a function of the seed alone."""
    torch.manual_seed(seed)
    return build()


def learning_rate(step: int, config: LoopConfig) -> float:
    """Linear warm-up over the first twentieth, then a cosine to ``FINAL_LEARNING_RATE``."""
    warmup = max(1, config.steps // 20)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    phase = (step - warmup) / max(1, config.steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * phase))
    return config.learning_rate * (FINAL_LEARNING_RATE + (1 - FINAL_LEARNING_RATE) * cosine)


def train_loop(
    objective: nn.Module,
    draw_batch: DrawBatch,
    config: LoopConfig,
    *,
    folder: Path,
    seed: int,
    description: str,
    stopping: EarlyStopping | None = None,
) -> float:
    """Minimise ``objective(*batch)`` and leave the averaged weights (EMA) in it.

    Args:
        objective: a module whose ``forward(*batch)`` is a scalar loss; parameters that do not
            require a gradient stay as they are.
        draw_batch: draws a batch with the generator it is given.
        folder: state is kept here (``.state.safetensors``) until ``remove_training_state``; losses
            are appended to ``log.jsonl``.
        stopping: scores the averaged weights every so often; the best are what is left.

    Returns:
        Mean loss over the last tenth of the steps that ran, of this call or of those before it.

    Raises:
        RunError: the loss is not finite.
    """
    here = fabric()
    trainable = [(name, p) for name, p in objective.named_parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [p for _, p in trainable],
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=config.weight_decay,
        fused=True,  # one kernel a parameter; the default took a sixth of a step on a CPU
    )
    wrapped, optimizer = here.setup(objective, optimizer)
    average = {name: p.detach().clone() for name, p in trainable}
    state_path = folder / ".state.safetensors"
    first, recent = _resume(state_path, objective, trainable, average, optimizer, stopping)
    tail = max(1, config.steps // 10)
    log = folder / "log.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    forget_steps(log, description, after=first)

    objective.train()
    saved, wait = time.monotonic(), CHECKPOINT_SECONDS
    with progress(description, config.steps, completed=first) as advance:
        for step in range(first, config.steps):
            if stopping is not None and stopping.exhausted:
                break
            torch.manual_seed(step_seed(seed, step) + here.global_rank * OF_A_PROCESS)
            generator = torch.Generator().manual_seed(step_seed(seed + 1, step))
            batch = [here.to_device(part) for part in part_of_batch(draw_batch(generator))]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            loss = wrapped(*batch)
            value = mean_over_processes(loss.detach())
            if not math.isfinite(value):
                raise RunError(
                    f"{description}: the loss became {value} at step {step}. Lower the learning "
                    "rate, or check the cohort for scans with extreme values."
                )
            here.backward(loss)
            here.clip_gradients(
                objective, optimizer, max_norm=GRADIENT_CLIP, error_if_nonfinite=False
            )
            optimizer.step()
            optimizer.zero_grad()
            # Early weights are forgotten faster, so that short trainings have a useful average.
            decay = min(config.ema_decay, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(
                    list(average.values()), [p.detach() for _, p in trainable], 1 - decay
                )
            recent = [*recent[-(tail - 1) :], value] if tail > 1 else [value]
            advance(note=f"loss {value:.4f}")
            record = {"stage": description, "step": step + 1, "loss": round(value, 6)}
            if stopping is not None and (step + 1) % stopping.every == 0:
                with _holding(objective, trainable, average):
                    score = stopping.score()
                stopping.record(score, step + 1, average)
                append_record(log, record | {"validation": round(score, 6)})
            elif (step + 1) % max(1, config.steps // 50) == 0:
                append_record(log, record)
            if time.monotonic() - saved > wait:
                began = time.monotonic()
                _save(
                    state_path, objective, trainable, average, optimizer, recent, stopping, step + 1
                )
                saved = time.monotonic()
                wait = CHECKPOINT_SECONDS * max(1.0, (saved - began) / QUICK_SECONDS)

    _copy(trainable, stopping.weights if stopping is not None and stopping.weights else average)
    objective.eval()
    return sum(recent) / len(recent)


@contextmanager
def _holding(
    objective: nn.Module, trainable: list[tuple[str, nn.Parameter]], weights: dict[str, Tensor]
) -> Iterator[None]:
    """The objective with other weights, evaluated and not trained, for a while."""
    own = {name: parameter.detach().clone() for name, parameter in trainable}
    _copy(trainable, weights)
    objective.eval()
    try:
        yield
    finally:
        _copy(trainable, own)
        objective.train()


def _copy(trainable: list[tuple[str, nn.Parameter]], weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in trainable:
            parameter.copy_(weights[name])


def remove_training_state(folder: Path) -> None:
    """Called once the artefact stands."""
    (folder / ".state.safetensors").unlink(missing_ok=True)


def _named_moments(
    trainable: list[tuple[str, nn.Parameter]], optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, str, Tensor]]:
    for name, parameter in trainable:
        for key, value in optimizer.state[parameter].items():
            yield name, key, value


def _save(
    path: Path,
    objective: nn.Module,
    trainable: list[tuple[str, nn.Parameter]],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    recent: list[float],
    stopping: EarlyStopping | None,
    step: int,
) -> None:
    tensors: dict[str, Tensor] = {f"weight/{name}": p for name, p in trainable}
    tensors |= {f"buffer/{name}": b for name, b in objective.named_buffers()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    tensors |= {
        f"moment/{key}/{name}": value for name, key, value in _named_moments(trainable, optimizer)
    }
    tensors["recent_losses"] = torch.tensor(recent, dtype=torch.float64)
    if stopping is not None:
        tensors |= stopping.state()
    save_training_state(path, tensors, step)


def _resume(
    path: Path,
    objective: nn.Module,
    trainable: list[tuple[str, nn.Parameter]],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    stopping: EarlyStopping | None,
) -> tuple[int, list[float]]:
    """Restore a state if there is one; returns the step to go on from and the recent losses."""
    if not path.is_file():
        return 0, []
    tensors, step = load_training_state(path)
    with torch.no_grad():
        for name, parameter in trainable:
            parameter.copy_(tensors[f"weight/{name}"])
            average[name].copy_(tensors[f"average/{name}"])
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = tensors[f"moment/{key}/{name}"]
                if key == "step":
                    value = value.to(parameter.device)
                else:  # laid out as the parameter is: the fused kernel relies on it
                    value = torch.empty_like(parameter).copy_(value)
                optimizer.state[parameter][key] = value
        for name, buffer in objective.named_buffers():
            buffer.copy_(tensors[f"buffer/{name}"])
    if stopping is not None:
        stopping.restore(tensors)
    return step, tensors["recent_losses"].tolist()
