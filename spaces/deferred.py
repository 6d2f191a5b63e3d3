"""Constraints that only a typed graph can tell: they read the width or the axes that an edge brings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from archspec.errors import Mark, Problem
from archspec.expressions import Number
from archspec.graph import Graph, Node, fields
from archspec.spec import Spec
from spaces import choices
from spaces.constraints import Constraint
from spaces.members import Numbers


class Deferred(NamedTuple):
    """A constraint and the mapping that it stands in."""

    constraint: Constraint
    mark: Mark | None

    def at(self, node: Node) -> bool:
        """Whether a node was made from that mapping, or by calling the block that it defines."""
        block = self.constraint.path.removeprefix("blocks.")
        called = block != self.constraint.path and node.raw.get("kind") == block
        return called or (self.mark is not None and node.raw.mark == self.mark)


def deferred_in(root: choices.Node) -> list[Deferred]:
    """The deferred constraints of a tree of choices."""
    own = [Deferred(one, root.mark) for one in root.deferred] if isinstance(root, choices.Product) else []
    return own + [found for node in choices.below(root) for found in deferred_in(node)]


def broken(spec: Spec, constraints: list[Deferred], dims: Numbers) -> Problem | None:
    """The first constraint that does not hold at a node that it stands at."""
    for node in nodes(spec.graph) if constraints else ():
        for one in constraints:
            if one.at(node) and (problem := one.constraint.broken({}, {**dims, **numbers(node)})):
                return problem
    return None


def nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of a graph and of all bodies in it; a body that several rounds share once."""
    stack, seen = [graph], set()
    while stack:
        inner = stack.pop()
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        for node in inner.nodes:
            yield node
            stack.extend(node.bodies.values())


def numbers(node: Node) -> dict[str, Number]:
    """What a constraint may read at a node: the width and the axes of its inputs, and its own numbers."""
    found: dict[str, Number] = {}
    for stream in node.types[:1]:
        found["width_in"] = stream.width
    for stream in node.types:
        found |= {axis.name: axis.size for span in stream.spans for axis in span.axes if isinstance(axis.size, int)}
    return found | {name: value for name, value in fields(node.kind).items() if isinstance(value, (int, float))}
