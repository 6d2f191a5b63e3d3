"""A model of one spec with the weights of another's: layers put in or around, attentions whose heads share keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor, fx

from archspec.errors import Problem, SpecError
from archspec.patterns import pattern
from archspec.spec import Spec
from compiler.logical import logical, named
from compiler.model import compile
from compiler.stored import few


@torch.no_grad()
def adopt(model: fx.GraphModule, spec: Spec, *, zero: Iterable[str] = ()) -> fx.GraphModule:
    """A model of the spec that starts with another model's weights, taken by their names in the specs.

    A weight whose name is gone is the only new one that has all parts of its name in their order: something was put
    around it. Where an attention has fewer key/value heads than the one whose name it has, each is the mean of those
    that it stands for. Ainslie et al. 2023, "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head
    Checkpoints", arXiv 2305.13245.

    Args:
        zero: patterns of the names of new weights that start at zero, so that what was put in says nothing yet; the
            others start as the spec says.

    Errors:
        SpecError: a weight of the model has no place in the spec, or another shape there; a pattern means none.
    """
    first = next(model.parameters())
    made = compile(spec, device=first.device, dtype=first.dtype).train(model.training)
    given, wanted = logical(model), logical(made)
    new = wanted.keys() - given.keys()
    for name in sorted(given.keys() - wanted.keys()):
        around = [other for other in new if _inside(name, other)]
        if len(around) == 1 and around[0] not in given:
            given[around[0]] = given.pop(name)
    if lost := sorted(given.keys() - wanted.keys()):
        _refuse(f"the spec has no place for {few(lost)}")
    heads = {
        name: node.kind.shape(node.types[0])[1]  # type: ignore[attr-defined]
        for name, node in named(spec.graph) if node.kind.name_ == "attention"
    }  # fmt: skip
    for name, value in given.items():
        target = wanted[name]
        if target.shape != value.shape:
            value = _pooled(value, target, heads.get(name.rpartition(".")[0].rpartition(".")[0]))
            if value is None:
                _refuse(f"{name} is {list(given[name].shape)}; in the spec it is {list(target.shape)}")
        target.copy_(value)
    for text in zero:
        found = [name for name in wanted.keys() - given.keys() if pattern(text, below=True).match(name)]
        if not found:
            _refuse(f"no new weight is called {text}")
        for name in found:
            wanted[name].zero_()
    return made


def _inside(name: str, other: str) -> bool:
    """Whether all parts of a name stand in another one, in their order."""
    left = iter(other.split("."))
    return all(part in left for part in name.split("."))


def _pooled(value: Tensor, target: Tensor, heads: int | None) -> Any:
    """Rows of key or value heads, each the mean of those of a group; None where they are no such rows."""
    if heads is None or value.shape[1:] != target.shape[1:] or value.shape[0] % target.shape[0]:
        return None
    groups = value.shape[0] // target.shape[0]
    return value.unflatten(0, (heads, groups, -1)).mean(1).flatten(0, 1)


def _refuse(cause: str) -> NoReturn:
    raise SpecError(Problem(cause, "the spec should be the model's with something put in, or with fewer kv_heads"))
