"""Measured latency: the median of passes that are taken in turn, so that a busy moment falls on all models alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Measured(NamedTuple):
    """Milliseconds of one forward pass."""

    median_ms: float
    lower_ms: float  # quartiles: how far apart they are tells how quiet the computer was
    upper_ms: float
    repeats: int
    threads: int


def measure(
    models: Sequence[nn.Module], inputs: Mapping[str, Tensor], *, repeats: int, threads: int, warmup: int = 3
) -> list[Measured]:
    """Times a forward pass of each model in ``eval()`` mode, without gradients.

    Args:
        models: timed in turn, `repeats` rounds.
        inputs: by name; moved to each model's device.
        threads: of the processor, while this runs.
        warmup: untimed passes of each model.
    """
    times: list[list[float]] = [[] for _ in models]
    with _still(models, threads), torch.no_grad():
        placed = [{name: value.to(_device(model)) for name, value in inputs.items()} for model in models]
        for model, given in zip(models, placed, strict=True):
            for _ in range(warmup):
                model(**given)
        for _ in range(repeats):
            for model, given, taken in zip(models, placed, times, strict=True):
                _wait(model)
                start = time.perf_counter()
                model(**given)
                _wait(model)
                taken.append(1e3 * (time.perf_counter() - start))
    quartiles = [statistics.quantiles(taken, n=4, method="inclusive") for taken in times]
    return [Measured(middle, low, high, repeats, threads) for low, middle, high in quartiles]


@contextmanager
def _still(models: Sequence[nn.Module], threads: int) -> Iterator[None]:
    """Models in ``eval()`` mode, a number of threads, and no garbage collection that a pass would have to pay for."""
    modes, before, collecting = [model.training for model in models], torch.get_num_threads(), gc.isenabled()
    try:
        torch.set_num_threads(threads)
        for model in models:
            model.eval()
        gc.disable()
        yield
    finally:
        if collecting:
            gc.enable()
        torch.set_num_threads(before)
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)


def resized(inputs: Mapping[str, Tensor], *, batch: int, length: int | None) -> dict[str, Tensor]:
    """Inputs of another batch and, for tokens ``[B, T]``, another length, made by repeating them."""

    def repeated(value: Tensor, dim: int, size: int) -> Tensor:
        return value.index_select(dim, torch.arange(size, device=value.device) % value.shape[dim])

    result = {name: repeated(value, 0, batch) for name, value in inputs.items()}
    if length is not None:
        result = {n: repeated(v, 1, length) if v.dim() == 2 else v for n, v in result.items()}
    return result


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def _wait(model: nn.Module) -> None:
    if _device(model).type == "cuda":
        torch.cuda.synchronize()
