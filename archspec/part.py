"""A part of a graph: what leads from some of its streams to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from archspec.graph import Graph, Node, Ref
from archspec.streams import Stream


def stream(graph: Graph, name: str) -> tuple[Ref, Stream]:
    """The stream of that name, ``node``, ``node.port`` or an input, and its type."""
    head, _, port = name.partition(".")
    if head in graph.inputs:
        return Ref(head), graph.inputs[head]
    return Ref(head, port), graph.node(head).outputs[port]


def between(graph: Graph, given: set[str], wanted: Sequence[Ref]) -> list[Node]:
    """The nodes that must run to get from some nodes or inputs to some streams."""
    needed = {ref.node for ref in wanted}
    chosen = []
    for node in reversed(graph.nodes):
        if node.name in needed and node.name not in given:
            chosen.append(node)
            needed |= {ref.node for ref in (*node.inputs, *node.outer.values())}
    return chosen[::-1]


def part(graph: Graph, given: Sequence[str], wanted: Sequence[str]) -> Graph:
    """The graph that computes some streams from others; nodes that exist only in training are left out."""
    known = {name: stream(graph, name) for name in given}
    words = {(ref.node, ref.port): Ref(name.replace(".", "_")) for name, (ref, _) in known.items()}

    def moved(ref: Ref) -> Ref:
        word = words.get((ref.node, ref.port))
        return ref if word is None else word._replace(span=ref.span)

    def seen_from_inside(refs: Mapping[str, Ref]) -> dict[str, Ref]:
        return {name: moved(ref) for name, ref in refs.items()}

    ends = {name: stream(graph, name) for name in wanted}
    nodes: list[Node] = []
    owners: dict[str, str] = {}  # whose weights a node uses here, where the one that has them elsewhere is left out
    for node in between(graph, {ref.node for ref, _ in known.values()}, [ref for ref, _ in ends.values()]):
        if node.when != "training":
            owner = owners.setdefault(node.shares or node.name, node.name)
            shares = owner if owner != node.name else None
            inputs, outer = tuple(map(moved, node.inputs)), seen_from_inside(node.outer)
            nodes.append(replace(node, inputs=inputs, outer=outer, shares=shares))
    types = {word.node: type_ for word, (_, type_) in zip(words.values(), known.values(), strict=True)}
    outputs = seen_from_inside({name: ref for name, (ref, _) in ends.items()})
    return Graph(types, len(types), nodes, outputs, {name: type_ for name, (_, type_) in ends.items()})
