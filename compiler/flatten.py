"""One flat graph: the traced blocks of a model written out in place of their calls."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from compiler.trace import Traced, _switch


def flatten(model: fx.GraphModule) -> fx.GraphModule:
    """The same computation as one graph, for passes that want to see all of it.

    Parameters and their names are the model's own. Modules that a trace keeps as calls are copied with their parameters
    shared, so that either model switches between ``train()`` and ``eval()`` without the other.
    """
    name, root = type(model).__name__, shared(model, {})
    two = any(getattr(module, "forms", None) for module in model.modules())
    graphs = {mode: flat_graph(model, mode) for mode in ([True, False] if two else [True])}
    flat: Any = Traced(root, graphs[True], name)
    if two:
        _switch(flat, Traced(root, graphs[False], name), graphs)
    flat.spec, flat.entries = model.spec, model.entries
    return flat.train(model.training)  # type: ignore[no-any-return]


def flat_graph(model: fx.GraphModule, training: bool) -> fx.Graph:
    """The graph of a model in one of its forms, without traced blocks; its targets are the model's own paths."""
    graph = fx.Graph()
    placeholders = [node for node in _form(model, training).nodes if node.op == "placeholder"]
    graph.output(_inline(graph, model, "", training, [graph.node_copy(node) for node in placeholders]))
    return graph


def _form(block: Any, training: bool) -> fx.Graph:
    forms = getattr(block, "forms", None)
    graph: fx.Graph = forms[training] if forms else block.graph
    return graph


def _inline(graph: fx.Graph, block: fx.GraphModule, path: str, training: bool, inputs: Sequence[Any]) -> Any:
    """Copies a block's nodes behind those of a graph; gives what the block returns."""
    given = iter(inputs)
    values: dict[fx.Node, Any] = {}
    for node in _form(block, training).nodes:
        args = fx.map_arg(node.args, values.__getitem__)
        inner = block.get_submodule(node.target) if node.op == "call_module" else None
        if node.op == "placeholder":
            values[node] = next(given)
        elif node.op == "output":
            return args[0]
        elif isinstance(inner, fx.GraphModule):
            assert not node.kwargs
            values[node] = _inline(graph, inner, f"{path}{node.target}.", training, args)
        elif node.target is operator.getitem and isinstance(args[0], (tuple, list)):
            values[node] = args[0][args[1]]  # one of a block's several results
        else:
            values[node] = copy = graph.node_copy(node, values.__getitem__)
            if node.op in ("call_module", "get_attr"):
                copy.target = path + node.target
    raise AssertionError("a graph without output")


def shared(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    """A module with a mode and hooks of its own over the same parameters and buffers."""
    if id(module) not in known:
        copy = known[id(module)] = object.__new__(type(module))
        for key, value in module.__dict__.items():
            copy.__dict__[key] = OrderedDict() if isinstance(value, OrderedDict) else value  # hooks
        copy.__dict__["_parameters"] = dict(module._parameters)
        copy.__dict__["_buffers"] = dict(module._buffers)
        copy.__dict__["_modules"] = {
            name: None if child is None else shared(child, known) for name, child in module._modules.items()
        }
    return known[id(module)]
