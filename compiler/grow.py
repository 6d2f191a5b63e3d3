"""A model with more parameter tokens than another, which computes the same."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import fx

from archspec.errors import Problem, SpecError
from archspec.graph import Graph
from archspec.kinds.token_parameters import TokenParameters
from archspec.spec import Spec
from compiler.logical import logical, named
from compiler.model import compile


@torch.no_grad()
def grow(model: fx.GraphModule, spec: Spec, *, seed: int = 0) -> fx.GraphModule:
    """A model of a spec whose ``token_parameters`` count more, with the outputs of the model: new keys are zero.

    Wang et al. 2024, "TokenFormer", arXiv 2410.23168.

    Args:
        seed: of the new values, which start as the spec says.

    Errors:
        SpecError: a growth that would change the function: fewer parameters, another scale or normaliser, a softmax,
            to which a key of zero is no nothing, or anything else that the spec has otherwise.
    """
    first = next(model.parameters())
    before: Any = model.spec
    if _rest(before.graph) != _rest(spec.graph):
        _refuse("specs differ in more than the counts of parameter tokens", "change count and scale alone")
    old, new = _parameters(before.graph), _parameters(spec.graph)
    for name, kind in new.items():
        if kind.count < old[name].count:
            _refuse(f"{name} has {kind.count} parameter tokens; the model has {old[name].count}", "count may only grow")
        if kind.scaled != old[name].scaled:
            _refuse(f"{name} has the scale {kind.scaled:g}; the model has {old[name].scaled:g}",
                    f"scale: {old[name].scaled!r}")  # fmt: skip
        if kind.normalize == "softmax" and kind.count != old[name].count:
            _refuse(f"{name} has a softmax, which a key of zero changes", "normalize: l2_gelu, or gelu_l2")
    made = compile(spec, device=first.device, dtype=first.dtype, seed=seed).train(model.training)
    wanted = logical(made)
    for name, value in logical(model).items():
        target = wanted[name]
        if target.shape != value.shape and name.endswith(".keys"):
            target.zero_()
        target[tuple(slice(size) for size in value.shape)].copy_(value)
    return made


def _parameters(graph: Graph) -> dict[str, TokenParameters]:
    """The matrices that are parameter tokens, by their logical names."""
    return {
        f"{name}.{role}": plan.kind
        for name, node in named(graph)
        for role, (_, plan) in node.matrices.items()
        if plan is not None and isinstance(plan.kind, TokenParameters)
    }


def _rest(graph: Graph) -> list[Any]:
    """All that a graph says besides its parameter tokens' counts, scales and normalisers' own."""
    return [
        (
            name,
            node.inputs,
            node.types,
            node.kind.model_copy(update={"linear": None, "linears": {}}),
            [
                (role, matrix, None if plan is None else _fixed(plan.kind))
                for role, (matrix, plan) in node.matrices.items()
            ],
        )
        for name, node in named(graph)
    ]


def _fixed(kind: Any) -> Any:
    return (kind.name_, kind.normalize) if isinstance(kind, TokenParameters) else kind


def _refuse(cause: str, hint: str) -> NoReturn:
    raise SpecError(Problem(f"a growth that would change the function: {cause}", hint))
