"""What may be taken together: legal rows of tied parts, options that some choice inside allows, by the values of dims.

A constraint ties parts of one mapping and dims, so that once the dims are known every mapping is settled by itself: its
tied parts are tried in all combinations, once for each combination of the dims that it reads, and kept as a table.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import product
from typing import NamedTuple

from archspec.errors import Problem
from spaces.choices import Alternative, Code, Constant, Node, Product, Rounds, product_of
from spaces.dims import LIMIT, Dims
from spaces.members import Numbers, fields, rounds, spread
from spaces.ranges import Range

ROWS = 200_000  # combinations of tied parts, over all dims, that are tabulated; more are drawn and tried
LAZY = 1_000  # the same for one combination of dims, where dims are too many to try each
TABLES = 50_000  # tables that are kept


class Row(NamedTuple):
    """One legal combination of a product's tied parts: offsets with their codes, and the number of rounds."""

    cells: tuple[tuple[int, Code], ...]
    times: int


class Legality:
    """Answers what is legal in one space, each question computed once."""

    def __init__(self, dims: Dims, root: Product) -> None:
        self.dims, self.root = dims, root
        self._tabulated: dict[int, bool] = {}
        self._rows: dict[tuple[object, ...], list[Row]] = {}
        self._options: dict[tuple[object, ...], list[int]] = {}

    def tabulated(self, node: Product) -> bool:
        """Whether its tied parts are few enough to be tried in all combinations."""
        known = self._tabulated.get(id(node))
        if known is None:
            joint = product_of(part.node.raw for part in node.joint)
            dims = self.dims.count(node.binding)
            if dims is None or dims > LIMIT:  # tables are made for the dims that are drawn
                known = joint is not None and joint <= LAZY
            else:
                known = joint is not None and joint * dims <= ROWS
            self._tabulated[id(node)] = known
        return known

    def rows(self, node: Product, dims: Numbers) -> list[Row]:
        """The legal combinations of the tied parts of a tabulated product."""
        key = (id(node), *(dims.get(name) for name in node.binding))
        known = self._rows.get(key)
        if known is None:
            if len(self._rows) >= TABLES:
                self._rows.clear()
            known = self._rows[key] = [
                row for codes in self._joint(node, dims) if (row := self._row(node, codes, dims))
            ]
        return known

    def _joint(self, node: Product, dims: Numbers) -> Iterator[list[Code]]:
        for chosen in product(*(list(self.assignments(part.node, dims)) for part in node.joint)):
            codes: list[Code] = [None] * node.size
            for part, own in zip(node.joint, chosen, strict=True):
                codes[part.offset : part.offset + part.node.size] = own
            yield codes

    def _row(self, node: Product, codes: list[Code], dims: Numbers) -> Row | None:
        if node.constraints and self.broken(node, codes, 0, dims):
            return None
        times = rounds(node, codes, 0, dims) if node.rounds else 0
        if times and not self.possible(node.rounds.node.body, dims):  # type: ignore[union-attr]
            return None
        return Row(tuple((at, code) for at, code in enumerate(codes) if code is not None), times)

    def broken(self, node: Product, codes: list[Code], at: int, dims: Numbers) -> Problem | None:
        """The first constraint of a product that an assignment breaks."""
        read = fields(node, codes, at, dims)
        return next((problem for one in node.constraints if (problem := one.broken(read, dims))), None)

    def options(self, node: Alternative, dims: Numbers) -> list[int]:
        """The options that have a member."""
        key = (id(node), *(dims.get(name) for name in node.reads))
        known = self._options.get(key)
        if known is None:
            if len(self._options) >= TABLES:
                self._options.clear()
            known = [number for number, option in enumerate(node.options) if self.possible(option, dims)]
            self._options[key] = known
        return known

    def possible(self, node: Node, dims: Numbers) -> bool:
        """Whether a node has a member; assumed of products that are not tabulated."""
        if isinstance(node, Alternative):
            return bool(self.options(node, dims))
        if isinstance(node, Product):
            if node.ties and self.tabulated(node) and not self.rows(node, dims):
                return False
            return all(self.possible(part.node, dims) for part in node.free)
        assert not isinstance(node, Rounds)
        return True

    @cached_property
    def members_of_dims(self) -> list[tuple[tuple[Code, ...], Numbers]] | None:
        """The legal assignments of those dims that decide what is legal, and the numbers that they give.

        None where they are too many to try each.
        """
        names = self.root.reads
        count = self.dims.count(names)
        if count is None or count > LIMIT:
            return None
        return [(codes, dims) for codes, dims in self.dims.combinations(names) if self.possible(self.root, dims)]

    def assignments(self, node: Node, dims: Numbers) -> Iterator[tuple[Code, ...]]:
        """All legal codes of a node; the caller knows that they are few."""
        if isinstance(node, Constant):
            yield ()
        elif isinstance(node, Range):
            for drawn in node.numbers():
                yield (drawn,)
        elif isinstance(node, Alternative):
            for chosen in self.options(node, dims):
                for inner in self.assignments(node.options[chosen], dims):
                    yield spread(node, chosen, inner)
        else:
            assert isinstance(node, Product)
            yield from self._product(node, dims)

    def _product(self, node: Product, dims: Numbers) -> Iterator[tuple[Code, ...]]:
        free = [(part.offset, part.node.size, list(self.assignments(part.node, dims))) for part in node.free]
        for row in self.rows(node, dims):
            places = list(free)
            if node.rounds is not None and row.times:
                inner: Rounds = node.rounds.node  # type: ignore[assignment]
                bodies, size = list(self.assignments(inner.body, dims)), inner.body.size
                places += [(node.rounds.offset + number * size, size, bodies) for number in range(row.times)]
            codes: list[Code] = [None] * node.size
            for at, code in row.cells:
                codes[at] = code
            for chosen in product(*(found for _, _, found in places)):
                for (at, size, _), own in zip(places, chosen, strict=True):
                    codes[at : at + size] = own
                yield tuple(codes)
