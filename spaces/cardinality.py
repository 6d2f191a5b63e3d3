"""How many members a space has.

Once the dims are known the mappings of a space settle one by one, so that counts multiply over parts and add over
options: exact, in big integers, without listing members. What two options have in common is counted once: options are
shown to be unlike by their keys and values, or else, where there are few, their members are listed. Where neither
works the result is an interval.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from archspec.source import Map, Seq
from spaces.choices import Alternative, Code, Constant, Node, Part, Product, Rounds, below, product_of
from spaces.dims import LIMIT
from spaces.identity import identity
from spaces.legality import Legality
from spaces.members import Numbers, value
from spaces.ranges import Range

LISTED = 200_000  # members that are listed to be counted


class Cardinality(NamedTuple):
    """The number of distinct members lies between ``low`` and ``high``, both included.

    ``high`` is None where a range is a continuum.
    """

    low: int
    high: int | None

    @property
    def exact(self) -> bool:
        return self.low == self.high

    def __str__(self) -> str:
        if self.high is None:
            return "infinitely many (a range is a continuum)"
        return _shown(self.low) if self.exact else f"between {_shown(self.low)} and {_shown(self.high)}"


def _shown(count: int) -> str:
    return f"{count:,}" if count < 10**15 else f"{str(count)[0]}.{str(count)[1:3]}e{len(str(count)) - 1}"


ONE = Cardinality(1, 1)


class Counter:
    """Counts the members of one space."""

    def __init__(self, legality: Legality) -> None:
        self.legality, self.dims, self.root = legality, legality.dims, legality.root
        self._known: dict[tuple[object, ...], Cardinality] = {}

    def members(self) -> Cardinality:
        """The number of members of the whole space."""
        root, dims = self.root, self.dims
        names: tuple[str, ...] = (*root.reads, *root.factors)
        if not _few(dims.count(names)):
            names = root.reads
        deciding = dims.read_by(names)
        other = _product(self.count(part.node, {}) for part in dims.order if part not in deciding)
        if not _few(dims.count(names)):
            most = _product([*(self.count(part.node, {}) for part in deciding), Cardinality(0, root.raw)])
            return _times(other, Cardinality(0, most.high))
        distinct: dict[Hashable, Numbers] = {}
        for codes, numbers in dims.combinations(names):
            distinct.setdefault(identity(dims.tree(codes)), numbers)
        possible = (numbers for numbers in distinct.values() if self.legality.possible(root, numbers))
        return _times(other, _sum(self.count(root, numbers) for numbers in possible))

    def count(self, node: Node, dims: Numbers) -> Cardinality:
        """The number of distinct values of a node under given dims."""
        key = (id(node), *(dims.get(name) for name in node.reads), *(dims.get(name) for name in node.factors))
        known = self._known.get(key)
        if known is None:
            known = self._count(node, dims)
            if not known.exact and known.high is not None and known.high <= LISTED and self._lists(node, dims):
                known = Cardinality(*[len(self._listed(node, dims))] * 2)
            self._known[key] = known
        return known

    def _count(self, node: Node, dims: Numbers) -> Cardinality:
        if isinstance(node, Constant):
            return ONE
        if isinstance(node, Range):
            if node.of is not None and not node.symbolic and dims.get(node.of) == 0:
                return ONE  # a multiple of nothing
            return Cardinality(1, None) if node.count is None else Cardinality(node.count, node.count)
        if isinstance(node, Alternative):
            options = [node.options[number] for number in self.legality.options(node, dims)]
            total = _sum(self.count(option, dims) for option in options)
            if all(unlike(a, b) for number, a in enumerate(options) for b in options[:number]):
                return total
            return Cardinality(max((self.count(option, dims).low for option in options), default=0), total.high)
        assert isinstance(node, Product)
        return self._rows(node, dims)

    def _rows(self, node: Product, dims: Numbers) -> Cardinality:
        free = _product(self.count(part.node, dims) for part in node.free)
        if isinstance(node.template, Seq) and not _readable(node):
            present = [max(1, self.count(part.node, dims).low - part.optional) for part in node.free]
            free = Cardinality(math.prod(present), free.high)
        if not node.ties:
            return free
        if not self.legality.tabulated(node):
            tied = product_of(part.node.raw for part in node.parts if part not in node.free)
            return _times(free, Cardinality(0, tied))
        combinations: dict[Hashable, set[int]] = {}
        for cells, times in self.legality.rows(node, dims):
            codes: list[Code] = [None] * node.size
            for at, code in cells:
                codes[at] = code
            shown = tuple(identity(value(p.node, codes, p.offset, dims)) for p in node.joint if p.shown)
            combinations.setdefault(shown, set()).add(times)
        if node.rounds is None:
            return _times(free, Cardinality(len(combinations), len(combinations)))
        inner: Rounds = node.rounds.node  # type: ignore[assignment]
        return _times(free, _sum(self._turns(inner, times, dims) for times in combinations.values()))

    def _turns(self, node: Rounds, times: set[int], dims: Numbers) -> Cardinality:
        """The number of distinct lists of bodies."""
        one = self.count(node.body, dims) if max(times) else ONE
        if node.optional:  # an absent body leaves the list shorter: all lengths up to the largest
            one = Cardinality(max(0, one.low - 1), None if one.high is None else one.high - 1)
            times = set(range(max(times) + 1))
        return _sum(_product([one] * turns) for turns in times)

    def _lists(self, node: Node, dims: Numbers) -> bool:
        """Whether the values of a node can be listed."""
        if node.raw is None or not all(name in dims for name in node.factors):
            return False
        if isinstance(node, Product) and node.ties and not self.legality.tabulated(node):
            return False
        return all(self._lists(inner, dims) for inner in below(node))

    def _listed(self, node: Node, dims: Numbers) -> set[Hashable]:
        return {identity(value(node, codes, 0, dims)) for codes in self.legality.assignments(node, dims)}


def unlike(a: Node, b: Node) -> bool:
    """Whether no value of ``a`` equals one of ``b``, as far as is easily seen."""
    if isinstance(b, Alternative) or (isinstance(b, Range) and not isinstance(a, Alternative)):
        a, b = b, a
    if isinstance(a, Alternative):
        return all(unlike(option, b) for option in a.options)
    if isinstance(a, Rounds) or isinstance(b, Rounds):
        return False
    if isinstance(a, Range):
        return _unlike_range(a, b)
    if isinstance(a, Constant) and isinstance(b, Constant):
        return identity(a.value) != identity(b.value)
    first, second = _parts(a), _parts(b)
    if first is None or second is None or isinstance(_tree(a), Map) != isinstance(_tree(b), Map):
        return True
    if _reshaped(a) or _reshaped(b):
        return False
    return first.keys() != second.keys() or any(unlike(first[key], second[key]) for key in first)


def _unlike_range(a: Range, b: Node) -> bool:
    if isinstance(b, Range):
        return a.of is None and b.of is None and (a.low > b.high or b.low > a.high)
    if not isinstance(b, Constant):
        return True
    if isinstance(b.value, str):
        return not a.symbolic
    if isinstance(b.value, bool) or not isinstance(b.value, (int, float)):
        return True
    return a.symbolic or (a.of is None and a.nearest(b.value) is None)


def _tree(node: Node) -> object:
    return node.value if isinstance(node, Constant) else node.template if isinstance(node, Product) else None


def _parts(node: Node) -> dict[str | int, Node] | None:
    """The nodes at the keys of a mapping or list; None for a scalar."""
    tree = _tree(node)
    if not isinstance(tree, (Map, Seq)):
        return None
    items = tree.items() if isinstance(tree, Map) else enumerate(tree)
    parts: dict[str | int, Node] = {key: Constant(item) for key, item in items}
    if isinstance(node, Product):
        parts.update({part.key: part.node for part in node.parts if part.shown})
    return parts


def _reshaped(node: Node) -> bool:
    """Whether members have other keys than the template: items that may be absent, the overrides of a loop."""
    if not isinstance(node, Product):
        return False
    loop = node.rounds is not None and isinstance(node.rounds.node, Rounds) and not node.rounds.node.listed
    return loop or any(part.optional for part in node.parts)


def _readable(node: Product) -> bool:
    """Whether a list with items that may be absent tells which of them are."""
    items: list[Part | Constant] = [Constant(item) for item in node.template]
    for part in node.parts:
        assert isinstance(part.key, int)
        items[part.key] = part
    for number, item in enumerate(items):
        if not isinstance(item, Part) or not item.optional:
            continue
        for later in items[number + 1 :]:
            other = later.node if isinstance(later, Part) else later
            if not _unlike_present(item.node, other):
                return False
            if not (isinstance(later, Part) and later.optional):
                break
    return True


def _unlike_present(a: Node, b: Node) -> bool:
    """As `unlike`, with ``absent`` left out of the first."""
    if isinstance(a, Alternative):
        return all(_unlike_present(option, b) for option in a.options)
    if isinstance(a, Constant) and a.value == "absent":
        return True
    return unlike(a, b)


def _times(a: Cardinality, b: Cardinality) -> Cardinality:
    high = 0 if 0 in (a.high, b.high) else None if a.high is None or b.high is None else a.high * b.high
    return Cardinality(a.low * b.low, high)


def _few(count: int | None) -> bool:
    return count is not None and count <= LIMIT


def _product(counts: Iterable[Cardinality]) -> Cardinality:
    total = ONE
    for count in counts:
        total = _times(total, count)
    return total


def _sum(counts: Iterable[Cardinality]) -> Cardinality:
    low, high = 0, 0
    continuum = False
    for count in counts:
        low += count.low
        high += count.high or 0
        continuum = continuum or count.high is None
    return Cardinality(low, None if continuum else high)
