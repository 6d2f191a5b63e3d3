"""A training run on disk: one safetensors file of weights and optimizer state, with the step and losses as its header.

One file, so that no death can leave the weights of one step beside the optimizer state of another.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from archspec.errors import Problem, SpecError
from compiler.stored import Stored, header
from search.durable import write_tensors

NAME = "checkpoint.safetensors"


def save(folder: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Writes the checkpoint over the older one.

    Args:
        progress: JSON data; `load` returns it.

    Errors:
        NotSaved: the disk is full or read-only; the older checkpoint is intact.
    """
    write(folder, tensors(model, optimizer), progress)


def tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What a checkpoint holds, by name."""
    state = {f"model.{name}": tensor for name, tensor in _tensors(model).items()}
    return state | {f"optimizer.{name}": tensor for name, tensor in _state(model, optimizer).items()}


def write(
    folder: Path,
    held: dict[str, Tensor],
    progress: dict[str, Any],
    whole: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> None:
    """Writes what `tensors` gave; ``whole`` makes all of a tensor when it is its turn. Raises `NotSaved`."""
    write_tensors(folder / NAME, held, {"archspec": json.dumps({"schema": 1, **progress})}, whole)


def load(
    folder: Path, model: nn.Module, optimizer: Optimizer, put: Callable[[Tensor, Tensor], object] = Tensor.copy_
) -> dict[str, Any] | None:
    """Puts the checkpoint's values into a model and its optimizer, one after the other.

    Args:
        put: puts a value into a tensor of the model, or one like it.

    Returns:
        What was given to `save` as progress, or None when there is no checkpoint.

    Errors:
        SpecError: the file is damaged, or of another model.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        found, said = header(path)
        progress: dict[str, Any] = json.loads(said["archspec"])
    except (OSError, KeyError, ValueError) as error:
        cause = f"{path} is no checkpoint of a training run: {error}"
        raise SpecError(Problem(cause, "remove it to start anew")) from None
    held = _tensors(model)
    stored, state = (_under(part, found) for part in ("model.", "optimizer."))
    for name in sorted({*held, *stored}):
        if name not in held or name not in stored or tuple(held[name].shape) != stored[name].shape:
            raise SpecError(
                Problem(f"{path} is of another model: they differ in {name}", "name another folder, or remove the file")
            )
    with torch.no_grad():
        for name, one in stored.items():
            put(held[name], one.tensor())
        parameters = dict(model.named_parameters())
        for full, one in state.items():
            name, key = full.rsplit(":", 1)
            value = one.tensor()
            # The optimizer counts its steps on the CPU; its moments live beside the parameter.
            if one.shape:
                whole, value = value, torch.empty_like(parameters[name])
                put(value, whole)
            optimizer.state[parameters[name]][key] = value
    return progress


def _under(part: str, found: dict[str, Stored]) -> dict[str, Stored]:
    return {name.removeprefix(part): one for name, one in found.items() if name.startswith(part)}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, shared ones once, under their first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (name, tensor))
    return {name: tensor.detach() for name, tensor in found.values()}


def _state(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    state = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            state[f"{name}:{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return state
