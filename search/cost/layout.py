"""Which choices of a space decide what each part of its members costs.

A space whose members are chains (`search.cost.chain`) is a start (interface), units in a row (a top-level node, or the
body of a `repeat`, which may be a `repeat` again, or the two residuals of a layer), and an end (the loss). A unit's
cost follows from the state that it is given, the choices inside it, and the choices inside the dims, blocks, defaults
and interface that its texts name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from archspec.errors import Refused
from archspec.source import Map, Seq
from search.cost.chain import APART, PLACE, PLAIN, words
from search.cost.nodes import halves, keys, part_of, template_of, text, varying
from search.cost.numbering import Numbering
from spaces.choices import Alternative, Code, Node, Product, Rounds
from spaces.constraints import number
from spaces.members import rounds, value
from spaces.ranges import Range
from spaces.rounds import most_rounds
from spaces.space import Space

LARGEST = 2**22  # combinations of choices that decide one unit

Codes = tuple[Code, ...]


class Unfactored(Exception):
    """The space cannot be taken apart; the message says why."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A node, or the body of rounds.

    Attributes:
        own: choices inside it, in its first round; ``stride`` slots further for every later one.
        outside: choices in what it names.
        take: what stands there in a member, from its codes and a round's number.
        round: it is a round and no node.
        suspect: it may read streams that stand outside of the chain.
        times: how many rounds a member has; None for a node.
        counting: choices that decide ``times``.
        most: rounds at most.
        parts: what a round is made of, if it is taken apart itself.
    """

    own: Numbering
    outside: Numbering
    take: Callable[[Codes, int], Any]
    round: bool
    suspect: bool
    times: Callable[[Codes], int] | None = None
    counting: Numbering = field(default_factory=Numbering)
    most: int = 1
    stride: int = 0
    parts: tuple[Unit, ...] = ()

    def all(self) -> Iterator[Unit]:
        """It, and all that it is made of."""
        yield self
        for part in self.parts:
            yield from part.all()


class Layout:
    """The units of a space.

    Attributes:
        sizes: codes of each slot, one more for a choice that is not reached.
        start: slots that decide what the model is given.

    Errors:
        Unfactored: its members are no chains, or a unit has too many combinations.
    """

    def __init__(self, space: Space) -> None:
        self.space, self.first = space, space.sampler.start
        self.sizes = [_size(slot.node, slot.path) + 1 for slot in space.slots]
        root = space.root
        if not isinstance(root, Product) or "outputs" in root.template:
            raise Unfactored("its members name their outputs")
        self.slots: dict[str, tuple[int, ...]] = {}  # of what may be named
        self.texts: dict[str, str] = {}
        self.around: list[str] = []
        dims, blocks = space.dims.product, part_of(root, "blocks", self.first)
        for name in dims.template:
            self._name(name, *part_of(dims, name, 0))
        for name in keys(blocks[0]):
            self._name(name, *part_of(blocks[0], name, blocks[1]))
        always: list[int] = []
        for key in root.template:
            if key not in APART and key not in ("dims", "blocks"):
                node, at = part_of(root, key, self.first)
                self.around.append(text(node))
                always += range(at, at + node.size)
        self.start = self._named(self.around, always)
        graph, at = part_of(root, "graph", self.first)
        if isinstance(graph, Alternative):
            raise Unfactored("its list of nodes is a choice")
        self.outer = _outer(graph)
        self.units = [unit for key in keys(graph) for unit in self._units(*part_of(graph, key, at))]
        for unit in self.all():
            combinations = unit.own.size * unit.outside.size
            if combinations > LARGEST:
                raise Unfactored(f"{combinations:,} combinations of choices decide the cost of one node")

    def all(self) -> Iterator[Unit]:
        """The units, and what they are made of."""
        for unit in self.units:
            yield from unit.all()

    def _name(self, name: str, node: Node, at: int) -> None:
        self.slots[name], self.texts[name] = tuple(range(at, at + node.size)), text(node)

    def _named(self, texts: Sequence[str], slots: Sequence[int]) -> tuple[int, ...]:
        """The given slots and those of all that some texts name."""
        found = set(slots)
        for word in words(list(texts), self.texts):
            found.update(self.slots.get(word, ()))
        return tuple(sorted(found))

    def _slots(self, slots: Sequence[int]) -> Numbering:
        return Numbering().slots(slots, self.sizes)

    def _unit(self, node: Node, at: int, *, round: bool, **rounds: Any) -> Unit:
        texts, stride = [text(node), *self.around], rounds.get("stride", 0)
        return Unit(
            Numbering() if "parts" in rounds else Numbering().node(node, at, self.sizes),
            self._slots(() if "parts" in rounds else self._named(texts, self.start)),
            lambda codes, turn: value(node, codes, at + turn * stride, self._numbers(codes)),
            round,
            bool(words(texts[:1], self.texts) & self.outer),
            **rounds,
        )

    def _units(self, node: Node, at: int) -> list[Unit]:
        """A node, or what its rounds are made of if they do not know their number."""
        template = template_of(node)
        if not isinstance(template, Map) or template.get("kind") != "repeat" or not template.keys() <= PLAIN:
            return [self._unit(node, at, round=False)]
        if "kind" in varying(node):
            return [self._unit(node, at, round=False)]
        return self._listed(node, at) or self._counted(node, at) or [self._unit(node, at, round=False)]

    def _listed(self, node: Node, at: int) -> list[Unit] | None:
        """Rounds that are written one by one, or of which each chooses for itself."""
        if "rounds" not in keys(node):
            return None
        inner, place = part_of(node, "rounds", at)
        if not isinstance(inner, Rounds):
            items = [part_of(inner, key, place) for key in keys(inner)]
            free = isinstance(template_of(inner), Seq) and all(self._free(item) for item, _ in items)
            return [self._unit(item, where, round=True) for item, where in items] if free else None
        assert isinstance(node, Product)
        if not self._free(inner.body):
            return None
        joint = [slot for part in node.joint for slot in range(at + part.offset, at + part.offset + part.node.size)]

        def times(codes: Codes) -> int:
            return rounds(node, codes, at, self._numbers(codes))

        counting = self._slots(sorted({*self._of(inner.reads), *joint}))
        size = inner.body.size
        count: dict[str, Any] = {"times": times, "counting": counting, "most": inner.most, "stride": size}
        return [self._round(inner.body, place, **count)]

    def _counted(self, node: Node, at: int) -> list[Unit] | None:
        """A body so many times."""
        if not {"times", "body"} <= set(keys(node)):
            return None
        (body, place), (counter, counting) = part_of(node, "body", at), part_of(node, "times", at)
        try:
            names, most = most_rounds(counter, self.space.dims)
        except Refused:  # another thing than dims decides
            return None

        def times(codes: Codes) -> int:
            numbers = self._numbers(codes)
            return int(number("times", {"times": value(counter, codes, counting, numbers)}, numbers))

        slots = {*self._of(names), *range(counting, counting + counter.size)}
        count: dict[str, Any] = {"times": times, "counting": self._slots(sorted(slots)), "most": most}
        inner = self._units(body, place)
        if all(unit.round for unit in inner):
            return [self._unit(body, place, round=True, parts=tuple(inner), **count)]
        return [self._round(body, place, **count)] if self._free(body) else None

    def _round(self, body: Node, at: int, **count: Any) -> Unit:
        """Rounds that do not know their number."""
        stride = count.get("stride", 0)
        units = [self._unit(half, at, round=False, stride=stride) for half in halves(body)]
        parts = tuple(replace(unit, take=_without(unit.take)) for unit in units)
        return self._unit(body, at, round=True, **count, **({"parts": parts} if parts else {}))

    def _of(self, names: Iterable[str]) -> set[int]:
        """The slots of what has some names."""
        return {slot for name in names for slot in self.slots.get(name, ())}

    def _free(self, body: Node) -> bool:
        """Whether a round does not know where it stands."""
        return not words([text(body), *self.around], self.texts) & PLACE

    def _numbers(self, codes: Codes) -> Any:
        return self.space.sampler.numbers(codes[: self.first])


def _size(node: Range | Alternative, path: str) -> int:
    if isinstance(node, Alternative):
        return len(node.options)
    if node.count is None:
        raise Unfactored(f"{path} is drawn from a continuum")
    return node.count


def _without(take: Callable[[Codes, int], Any]) -> Callable[[Codes, int], Any]:
    """Of half a layer nothing, if there is none of it."""

    def taken(codes: Codes, turn: int) -> Any:
        raw = take(codes, turn)
        return "absent" if raw["mixer"] == raw["channel"] == "absent" else raw

    return taken


def _outer(graph: Node) -> frozenset[str]:
    """Words by which a node reads more than the one before it, or uses weights of another."""
    names = {"from", "weights", "valid", "tokens", "image", "source", "target"}
    for key in keys(graph):
        template = template_of(part_of(graph, key, 0)[0])
        if isinstance(template, Map) and isinstance(template.get("name"), str):
            names.add(template["name"])
    return frozenset(names)
