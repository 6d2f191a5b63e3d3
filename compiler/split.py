"""A model in two parts: what some of its inputs decide, and what is left to do for each value of the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from torch import fx

from compiler.flatten import flat_graph, shared
from compiler.trace import Traced


def split(model: fx.GraphModule, moving: Collection[str]) -> tuple[Traced, Traced]:
    """The inference of a model as two models over its weights.

    The first takes the inputs that are not ``moving``, and gives in a tuple all that follows from them alone, such as
    the keys and values of an encoded source in every layer of a decoder. The second takes the moving inputs, then what
    the first gives, and gives what the model gives. Inputs keep their order.
    """
    flat = flat_graph(model, training=False)
    inputs = [node for node in flat.nodes if node.op == "placeholder"]
    moved = {node for node in inputs if node.target in moving}
    fixed = set(inputs) - moved
    for node in flat.nodes:  # what reads weights alone is neither, and stands wherever it is needed
        if moved.intersection(node.all_input_nodes):
            moved.add(node)
        elif fixed.intersection(node.all_input_nodes):
            fixed.add(node)
    end = next(iter(reversed(flat.nodes)))
    known = [node for node in flat.nodes if node in fixed and (moved | {end}).intersection(node.users)]
    graphs = {
        "Once": _between(flat, [node for node in inputs if node in fixed], tuple(known)),
        "Step": _between(flat, [node for node in inputs if node in moved] + known, end.args[0]),
    }
    once, step = (Traced(shared(model, {}), graph, name).eval() for name, graph in graphs.items())
    return once, step


def _between(graph: fx.Graph, given: Iterable[fx.Node], wanted: Any) -> fx.Graph:
    """What computes some values of a graph from others."""
    found = fx.Graph()
    values = {node: found.placeholder(str(node.target) if node.op == "placeholder" else node.name) for node in given}
    needed: set[fx.Node] = set()
    ahead: list[fx.Node] = []
    fx.map_arg(wanted, ahead.append)
    while ahead:
        node = ahead.pop()
        if node not in values and node not in needed:
            needed.add(node)
            ahead += node.all_input_nodes
    for node in graph.nodes:
        if node in needed:
            values[node] = found.node_copy(node, values.__getitem__)
    found.output(fx.map_arg(wanted, values.__getitem__))
    return found
