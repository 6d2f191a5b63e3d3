"""A training run on disk: one safetensors file of weights and optimizer state, with the step and losses as its header.

One file, so that no death can leave the weights of one step beside the optimizer state of another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from archspec.errors import Problem, SpecError
from search.durable import write_tensors

NAME = "checkpoint.safetensors"


def save(folder: Path, model: nn.Module, optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Writes the checkpoint over the older one.

    Args:
        progress: JSON data; `load` returns it.

    Errors:
        NotSaved: the disk is full or read-only; the older checkpoint is intact.
    """
    tensors = {f"model.{name}": tensor for name, tensor in _tensors(model).items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in _state(model, optimizer).items()}
    write_tensors(folder / NAME, tensors, {"archspec": json.dumps({"schema": 1, **progress})})


def load(folder: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any] | None:
    """Puts the checkpoint's values into a model and its optimizer.

    Returns:
        What was given to `save` as progress, or None when there is no checkpoint.

    Errors:
        SpecError: the file is damaged, or of another model.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            progress: dict[str, Any] = json.loads(file.metadata()["archspec"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- the file is no mapping
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        cause = f"{path} is no checkpoint of a training run: {error}"
        raise SpecError(Problem(cause, "remove it to start anew")) from None
    held = _tensors(model)
    stored, state = (_under(part, tensors) for part in ("model.", "optimizer."))
    for name in sorted({*held, *stored}):
        if name not in held or name not in stored or held[name].shape != stored[name].shape:
            raise SpecError(
                Problem(f"{path} is of another model: they differ in {name}", "name another folder, or remove the file")
            )
    with torch.no_grad():
        for name, tensor in stored.items():
            held[name].copy_(tensor)
    _restore(model, optimizer, state)
    return progress


def _under(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}


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


def _restore(model: nn.Module, optimizer: Optimizer, state: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for full, value in state.items():
        name, key = full.rsplit(":", 1)
        parameter = parameters[name]
        # The optimizer counts its steps on the CPU; its moments live beside the parameter.
        optimizer.state[parameter][key] = value if value.dim() == 0 else value.to(parameter.device)
