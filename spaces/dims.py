"""The dims of a space: numbers with names, chosen before all else because anything may read them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any

from archspec.errors import Problem, SpecError
from archspec.expressions import ExpressionError, Number
from archspec.source import Map
from spaces.choices import Code, Node, Part, Product, scalars
from spaces.constraints import bindings, number
from spaces.members import assignments, value
from spaces.ranges import Range

LIMIT = 20_000  # combinations of dims that are tried one by one


class Dims:
    """The dims of a space.

    Args:
        template: the dims that do not vary, with a place for those that do.
        nodes: those that vary.
    """

    def __init__(self, template: Map, nodes: dict[str, Node]) -> None:
        self.names = frozenset(template)
        self.product = Product(template, list(nodes.items()), path="dims")
        self.texts = {name: texts(nodes[name]) if name in nodes else _text(template[name]) for name in template}
        self.order = [part for key in self._sorted(template, nodes) for part in self.product.parts if part.key == key]

    def _sorted(self, template: Map, nodes: Mapping[str, Node]) -> list[str]:
        """Names of those that vary, each after those that its ``of`` reads."""
        reads = {name: bindings(node.factors, self.texts, ())[0] & nodes.keys() for name, node in nodes.items()}
        try:
            return list(TopologicalSorter(reads).static_order())
        except CycleError as error:
            name = error.args[1][0]
            mark = template.where(name)
            raise SpecError(Problem(f"{name} is a multiple of itself", None, f"dims.{name}", mark)) from None

    def read_by(self, names: Collection[str]) -> list[Part]:
        """The varying dims that decide the values of some dims."""
        fields, _, _ = bindings(names, self.texts, ())
        return [part for part in self.order if part.key in fields]

    def tree(self, codes: list[Code] | tuple[Code, ...]) -> Map:
        """The dims of one assignment; a varying dim whose slot is not assigned is left as None."""
        result = Map(self.product.template)
        for part in self.order:
            if part.node.size and codes[part.offset] is None:
                continue
            factors = {name: number(name, result, {}) for name in part.node.factors}
            result[str(part.key)] = value(part.node, codes, part.offset, factors)
        return result

    def numbers(self, tree: Mapping[str, Any], names: Collection[str]) -> dict[str, Number]:
        """The numbers that dims mean; those that mean none are left out."""
        result = {}
        for name in names:
            try:
                result[name] = number(name, tree, {})
            except ExpressionError:
                continue
        return result

    def count(self, names: Collection[str]) -> int | None:
        """How many assignments decide the values of some dims, None for a continuum."""
        total = 1
        for part in self.read_by(names):
            if part.node.raw is None:
                return None
            total *= part.node.raw
        return total

    def combinations(self, names: Collection[str]) -> Iterator[tuple[tuple[Code, ...], dict[str, Number]]]:
        """All assignments of the dims that decide some names, codes of the others None, and the numbers they give."""
        parts = self.read_by(names)
        for chosen in product(*(list(assignments(part.node)) for part in parts)):
            codes: list[Code] = [None] * self.product.size
            for part, own in zip(parts, chosen, strict=True):
                codes[part.offset : part.offset + part.node.size] = own
            yield tuple(codes), self.numbers(self.tree(codes), names)


def texts(node: Node) -> list[str]:
    """The expressions that may stand at a node; for a multiple of a name, the name."""
    found = [item.of if isinstance(item, Range) else item for item in scalars(node)]
    return [text for text in found if isinstance(text, str)]


def _text(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else []
