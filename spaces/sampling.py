"""Members drawn at random: dims first, then every part by itself, tied parts from their legal rows.

The tree of choices is compiled once into closures that fill a list of codes.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from spaces.choices import Alternative, Code, Node, Product, Rounds
from spaces.legality import Legality
from spaces.members import Numbers, rounds
from spaces.ranges import Range

TRIES = 1000  # for tied parts that are too many to tabulate
UNLUCKY = 10  # times that those are given up before all is
DIMS_TRIES = 20_000  # for dims that are too many to try each

Fill = Callable[[Random, list[Code], int, Numbers], None]


class Unlucky(Exception):
    """No legal combination was met among those that are too many to tabulate."""


class Sampler:
    """Draws codes of one space."""

    def __init__(self, legality: Legality) -> None:
        self.legality, self.dims = legality, legality.dims
        self.start = self.dims.product.size
        self.size = self.start + legality.root.size
        self._root = self.compiled(legality.root)
        self._dims = [(part, self.compiled(part.node)) for part in self.dims.order]
        self._deciding = {part.key for part in self.dims.read_by(legality.root.reads)}
        self._names = tuple(sorted(self.dims.names))
        self._numbers: dict[tuple[Code, ...], Numbers] = {}

    def draw(self, random: Random) -> list[Code]:
        """The codes of one member that keeps every local constraint.

        Errors:
            Unlucky: none was met.
        """
        codes: list[Code] = [None] * self.size
        unlucky = 0
        for _ in range(DIMS_TRIES):
            dims = self.draw_dims(random, codes)
            if dims is None:
                continue
            try:
                self._root(random, codes, self.start, dims)
            except Unlucky:
                unlucky += 1
                if unlucky == UNLUCKY:
                    raise
                codes = [None] * self.size
                continue
            return codes
        raise Unlucky

    def draw_dims(self, random: Random, codes: list[Code]) -> Numbers | None:
        """Fills the codes of the dims; None if no member has those."""
        members = self.legality.members_of_dims
        if members is None:
            codes[: self.start] = [None] * self.start
        else:
            if not members:
                raise Unlucky
            codes[: self.start] = members[int(random.random() * len(members))][0]
        for part, fill in self._dims:
            if members is None or part.key not in self._deciding:
                fill(random, codes, part.offset, {})
        dims = self.numbers(tuple(codes[: self.start]))
        return dims if members is not None or self.legality.possible(self.legality.root, dims) else None

    def numbers(self, codes: tuple[Code, ...]) -> Numbers:
        """The numbers that dims mean under their codes."""
        known = self._numbers.get(codes)
        if known is None:
            if len(self._numbers) > 100_000:
                self._numbers.clear()
            known = self._numbers[codes] = self.dims.numbers(self.dims.tree(codes), self._names)
        return known

    def compiled(self, node: Node) -> Fill:
        if isinstance(node, Range):
            return lambda random, codes, at, dims: codes.__setitem__(at, node.draw(random))
        if isinstance(node, Alternative):
            return self._alternative(node)
        assert isinstance(node, Product)
        return self._product(node)

    def _alternative(self, node: Alternative) -> Fill:
        legality, offsets = self.legality, node.offsets
        inner = [self.compiled(option) if option.size else None for option in node.options]
        fixed = legality.options(node, {}) if not node.reads else None

        def fill(random: Random, codes: list[Code], at: int, dims: Numbers) -> None:
            legal = legality.options(node, dims) if fixed is None else fixed
            codes[at] = chosen = legal[int(random.random() * len(legal))]
            further = inner[chosen]
            if further is not None:
                further(random, codes, at + offsets[chosen], dims)

        return fill

    def _product(self, node: Product) -> Fill:
        free = [(self.compiled(part.node), part.offset) for part in node.free]
        if not node.ties:

            def fill(random: Random, codes: list[Code], at: int, dims: Numbers) -> None:
                for inner, offset in free:
                    inner(random, codes, at + offset, dims)

            return fill
        body, start, size = self._rounds(node)
        legality = self.legality
        tabulated = legality.tabulated(node)
        fixed = legality.rows(node, {}) if tabulated and not node.binding else None

        def fill_tied(random: Random, codes: list[Code], at: int, dims: Numbers) -> None:
            if tabulated:
                legal = legality.rows(node, dims) if fixed is None else fixed
                cells, times = legal[int(random.random() * len(legal))]
                for offset, code in cells:
                    codes[at + offset] = code
            else:
                times = self._tried(node, random, codes, at, dims)
            for inner, offset in free:
                inner(random, codes, at + offset, dims)
            if body is not None:
                for number in range(times):
                    body(random, codes, at + start + number * size, dims)

        return fill_tied

    def _rounds(self, node: Product) -> tuple[Fill | None, int, int]:
        if node.rounds is None:
            return None, 0, 0
        inner = node.rounds.node
        assert isinstance(inner, Rounds)
        return self.compiled(inner.body), node.rounds.offset, inner.body.size

    def _tried(self, node: Product, random: Random, codes: list[Code], at: int, dims: Numbers) -> int:
        """Draws tied parts until their constraints hold; the number of rounds."""
        fills = [(self.compiled(part.node), part) for part in node.joint]
        for _ in range(TRIES):
            for fill, part in fills:
                codes[at + part.offset : at + part.offset + part.node.size] = [None] * part.node.size
                fill(random, codes, at + part.offset, dims)
            if self.legality.broken(node, codes, at, dims) is None:
                return rounds(node, codes, at, dims) if node.rounds else 0
        raise Unlucky
