"""Norms folded into the matrices beside them: what a norm multiplies by and adds is part of the next matrix.

A finished batch norm is nothing but such a map and goes as a whole; layer and RMS norms keep their statistics and lose
their learned scale and shift. Where a norm's only readers are plain weight matrices or heads, ``W (a x + b) + c`` is
``(W a) x + (W b + c)``; else a batch norm behind a matrix that nobody else reads goes into that one.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from archspec.kind import Matrix
from compiler.build import plain_linear
from compiler.flatten import flat_graph, shared
from compiler.modules.batch_norm import Statistics
from compiler.moving import settle
from compiler.trace import Traced

LINEAR = (F.linear, torch._C._nn.linear)
NORMS = {F.layer_norm: ("weight", "bias"), F.rms_norm: ("weight",)}


class Norm(NamedTuple):
    """The affine map of a norm, in float64: ``scale * n(x) + shift``; ``whole`` where ``n(x)`` is ``x``."""

    scale: Tensor | None
    shift: Tensor | None
    whole: bool


@torch.no_grad()
def fold(model: fx.GraphModule) -> fx.GraphModule:
    """The model for inference, its norms folded into the matrices beside them: one flat graph, equal outputs.

    Numbers that move are at their final values. Other weights are shared with the model, which stays as it is; a
    matrix that a norm went into is a new one, also where it was shared. Norms that are read by anything else than
    plain matrices stay. The result can no longer be trained.
    """
    model = settle(model)
    root, graph = shared(model, {}), flat_graph(model, training=False)
    for node in list(graph.nodes):
        norm = _norm(root, node)
        if norm is None:
            continue
        matrices = [_matrix(root, user, node) for user in node.users]
        if all(found is not None for found in matrices) and matrices:
            for user, found in zip(list(node.users), matrices, strict=True):
                assert found is not None
                weight, bias = found
                if norm.shift is not None:
                    added = weight.double() @ norm.shift
                    bias = added if bias is None else bias.double() + added
                _replace(graph, root, user, node, weight.double() * _row(norm.scale), bias, weight)
            _strip(graph, node, norm)
        elif norm.whole and isinstance(before := node.args[0], fx.Node) and len(before.users) == 1:
            found = _matrix(root, before, before.args[0] if before.args else None)
            if found is not None:
                weight, bias = found
                scale = norm.scale if norm.scale is not None else torch.ones(weight.shape[0]).double()
                shift = norm.shift if bias is None else norm.shift + scale * bias.double()
                _replace(graph, root, before, before.args[0], weight.double() * scale[:, None], shift, weight)
                _strip(graph, node, norm)
    for node in reversed(list(graph.nodes)):  # parameters that nobody reads now
        if not node.users and _constant(root, node) is not None:
            graph.erase_node(node)
    folded: Any = Traced(root, graph, f"{type(model).__name__}")
    folded.spec, folded.entries = model.spec, {}
    return folded.eval()  # type: ignore[no-any-return]


def _row(scale: Tensor | None) -> Tensor | float:
    return 1.0 if scale is None else scale


def _norm(root: nn.Module, node: fx.Node) -> Norm | None:
    """What a node multiplies by and adds, if it is a norm that does."""
    if node.op == "call_module" and isinstance(module := root.get_submodule(str(node.target)), Statistics):
        return Norm(*module.affine(), whole=True)
    if node.op != "call_function" or node.target not in NORMS:
        return None
    told = [_constant(root, node.kwargs.get(name)) for name in ("weight", "bias")]
    scale, shift = (None if value is None else value.double() for value in told)
    return None if scale is None and shift is None else Norm(scale, shift, whole=False)


def _matrix(root: nn.Module, node: fx.Node, given: Any) -> tuple[Tensor, Tensor | None] | None:
    """The weight and bias of a plain product of what is given; None for any other node."""
    if not node.args or node.args[0] is not given:
        return None
    if node.op == "call_module":
        module = root.get_submodule(str(node.target))
        return (module.weight, module.bias) if type(module) is nn.Linear else None
    if node.op != "call_function" or node.target not in LINEAR:
        return None
    weight, bias = (_constant(root, value) for value in (*node.args[1:], None)[:2])
    return None if weight is None else (weight, bias)


def _constant(root: nn.Module, value: Any) -> Tensor | None:
    """The value of a node that follows from parameters alone."""
    if not isinstance(value, fx.Node):
        return None
    if value.op == "get_attr":
        path, _, name = str(value.target).rpartition(".")
        found: Tensor = getattr(root.get_submodule(path), name)
        return found
    if value.op == "call_function" and value.target is operator.add:  # the offset of a scale
        scale = _constant(root, value.args[0])
        return None if scale is None or isinstance(value.args[1], fx.Node) else scale + value.args[1]
    return None


def _replace(
    graph: fx.Graph, root: nn.Module, user: fx.Node, source: Any, weight: Tensor, bias: Tensor | None, like: Tensor
) -> None:
    """Puts a new matrix in the place of a product."""
    linear = plain_linear(Matrix(weight.shape[1], weight.shape[0], bias is not None))
    linear.weight = nn.Parameter(weight.to(like.dtype), requires_grad=False)
    linear.bias = None if bias is None else nn.Parameter(bias.to(like.dtype), requires_grad=False)
    name = f"folded_{sum(child.startswith('folded_') for child in root._modules)}"
    root.add_module(name, linear)
    with graph.inserting_before(user):
        user.replace_all_uses_with(graph.call_module(name, (source,)))
    graph.erase_node(user)


def _strip(graph: fx.Graph, node: fx.Node, norm: Norm) -> None:
    """Takes a norm's map out of it."""
    if norm.whole:
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        graph.erase_node(node)
    else:
        node.kwargs = {name: value for name, value in node.kwargs.items() if name not in NORMS[node.target]}  # type: ignore[index]
