"""Initialisation as data: what each weight starts as, under the scheme that a spec names.

Every parameter is drawn from a generator seeded by the model's seed and the parameter's own name, so that adding a
layer leaves the others as they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn


def materialise(
    model: nn.Module,
    init: dict[str, Any],
    *,
    device: str | torch.device,
    dtype: torch.dtype,
    seed: int,
    layers: int,
    hold: Callable[[Tensor, Tensor], Tensor] = lambda blank, value: value,
) -> None:
    """Gives every parameter and buffer of a model on the meta device storage and its first value.

    Args:
        init: the scheme, as ``{"kind": "normal", "std": 0.02, "depth_scaled": True}``.
        layers: residual branches, for schemes that scale with depth.
        hold: what is kept of a value, given the blank parameter.
    """
    made: dict[int, nn.Parameter] = {}
    kept = []  # what is replaced must live on, or its id could be given away
    for path, module in model.named_modules():
        records = getattr(module, "initial", {})
        for name, old in module._parameters.items():
            if old is None:
                continue
            if id(old) not in made:
                kept.append(old)
                value = torch.empty(old.shape, dtype=dtype, device=device)
                generator = torch.Generator(device=device)
                generator.manual_seed(_seed(seed, f"{path}.{name}"))
                with torch.no_grad():
                    _fill(value, records.get(name), module, name, init, layers, generator)
                    made[id(old)] = nn.Parameter(hold(old, value), requires_grad=old.requires_grad)
            module._parameters[name] = made[id(old)]
    compute_tables(model, device)


def allocate(model: nn.Module, *, device: str | torch.device, dtype: torch.dtype) -> None:
    """Gives every parameter of a model on the meta device storage without a value, and computes its tables."""
    made: dict[int, nn.Parameter] = {}
    kept = []
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is None:
                continue
            if id(old) not in made:
                kept.append(old)
                value = torch.empty(old.shape, dtype=dtype, device=device)
                made[id(old)] = nn.Parameter(value, requires_grad=old.requires_grad)
            module._parameters[name] = made[id(old)]
    compute_tables(model, device)


def compute_tables(model: nn.Module, device: str | torch.device) -> None:
    """Gives the buffers of a model storage and what follows from its spec."""
    tables: dict[int, Tensor] = {}
    kept = []
    for module in model.modules():
        fill = getattr(module, "fill", None)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                if id(buffer) in tables:
                    fill = None
                else:
                    kept.append(buffer)
                    tables[id(buffer)] = torch.empty(buffer.shape, dtype=buffer.dtype, device=device)
                module._buffers[name] = tables[id(buffer)]
        if fill is not None and module._buffers:
            fill()


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=7).digest())


def _fill(
    value: Tensor,
    record: Any,
    module: nn.Module,
    name: str,
    init: dict[str, Any],
    layers: int,
    generator: torch.Generator,
) -> None:
    if isinstance(record, float):
        value.fill_(record)
    elif isinstance(record, list):
        value.copy_(torch.tensor(record))
    elif record is not None and record[0] == "normal":
        value.normal_(0, record[1], generator=generator)
    elif record is not None and record[0] == "truncated":
        _truncated(value, record[1], generator)
    elif record is not None and record[0] == "fan_in":
        bound = 1 / math.sqrt(math.prod(value.shape[1:]))
        value.uniform_(-bound, bound, generator=generator)
    elif record is not None and record[0] == "identity":
        nn.init.eye_(value).mul_(record[1])
    elif name == "bias" or value.ndim < 2:
        value.zero_()
    else:
        _scheme(value, module, init, layers, generator)
        if record is not None and len(record) > 1:
            value.mul_(record[1])


def _scheme(value: Tensor, module: nn.Module, init: dict[str, Any], layers: int, generator: torch.Generator) -> None:
    kind = init["kind"]
    stacked = value.ndim == 3  # [groups, inputs, outputs]; an ordinary matrix is [outputs, inputs]
    outputs, inputs = (value.shape[2], value.shape[1]) if stacked else (value.shape[0], value[0].numel())
    writes = getattr(module, "writes", False)
    if kind in ("normal", "truncated_normal"):
        std = init["std"] / (math.sqrt(2 * max(1, layers)) if init["depth_scaled"] and writes else 1)
        value.normal_(0, std, generator=generator) if kind == "normal" else _truncated(value, std, generator)
    elif kind == "xavier":  # Glorot and Bengio 2010; parts of a fused matrix count as matrices of their own
        dim = 2 if stacked else 0
        for part in value.split(getattr(module, "parts", [outputs]), dim=dim):
            bound = init["gain"] * math.sqrt(6 / (inputs + part.shape[dim]))
            part.uniform_(-bound, bound, generator=generator)
    elif kind == "kaiming":  # He et al. 2015, arXiv 1502.01852
        bound = init["gain"] * math.sqrt(3 / inputs)
        value.uniform_(-bound, bound, generator=generator)
    else:  # mup: variance falls with the width beyond the base. Yang et al. 2022, arXiv 2203.03466
        value.normal_(0, init["std"] * math.sqrt(min(1.0, init["base_width"] / inputs)), generator=generator)


def _truncated(value: Tensor, std: float, generator: torch.Generator) -> None:
    nn.init.trunc_normal_(value, std=std, a=-2 * std, b=2 * std, generator=generator)
