"""Many trees priced fast: a tree whose top-level nodes form a chain costs the sum of its pieces, each priced once.

A piece is a top-level node, or a round of a `repeat` whose rounds do not know their number. Its price is remembered by
its text, the texts of the dims, blocks and defaults that it names (and that those name), the interface, and the state
that it is given. A tree that is no chain (several inputs, edges beside the chain, shared weights, numbers that depend
on depth) is elaborated and priced as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from archspec import reuse
from archspec import spec as specs
from archspec.elaborate import Elaborator
from archspec.errors import Problem, Refused, SpecError
from archspec.scope import Scope
from archspec.source import Map, Seq
from search.cost import devices
from search.cost.pieces import NoChainError, Piece, first_piece, last_piece, piece
from search.cost.price import Cost, lengths_of, price
from search.cost.setting import Phase, setting
from search.cost.state import State
from search.cost.total import Total
from search.cost.wires import inputs

Text = Callable[[Any], str]
APART = ("graph", "name", "description", "init")  # keys of a file that change no piece's price
PLAIN = frozenset({"kind", "name", "times", "body", "rounds"})
PLACE = frozenset({"index", "times", "depth", "each"})  # words by which a round knows where it stands
_WORD = re.compile(r"[A-Za-z_]\w*")


def price_trees(
    trees: Iterable[Map],
    *,
    batch: int = 1,
    length: int | None = None,
    dtype: str = "float32",
    device: str = devices.LOCAL,
    phase: Phase = "prefill",
    context: int | None = None,
) -> list[Cost | SpecError]:
    """Prices resolved trees, as `archspec.spec.from_tree` takes them: as `price` does, but without rows.

    A tree that the language refuses gets its error instead. The trees must not be changed meanwhile.
    """
    chain = chain_of(batch, length, dtype, device, phase, context)
    known: dict[int, str] = {}
    kept: list[Any] = []  # so that no identity is used again

    def text(value: Any) -> str:
        found = known.get(id(value))
        if found is None:
            found = known[id(value)] = repr(value)
            kept.append(value)
        return found

    return [chain.price(tree, text) for tree in trees]


@lru_cache(maxsize=64)
def chain_of(
    batch: int, length: int | None, dtype: str, device: str, phase: Phase = "prefill", context: int | None = None
) -> Chain:
    """The chain prices of one setting, remembered."""
    return Chain(batch=batch, length=length, dtype=dtype, device=device, phase=phase, context=context)


Found = tuple[Piece, int] | NoChainError | SpecError


class Link(NamedTuple):
    """A piece where it stands: a node, or a round of a repeat."""

    raw: Any
    text: str
    round: bool


class Context:
    """All of a tree but its nodes: what a piece may name, and what the model is given.

    Errors:
        NoChainError: no tree with it is a chain.
        SpecError: a length is missing or too long.
    """

    def __init__(self, tree: Map, chain: Chain) -> None:
        self.blocks: Map = tree.get("blocks", Map())
        dims: Map = tree.get("dims", Map())
        self.scope = Scope()
        self.scope.defaults = dict(tree.get("defaults", {}))
        elaborator = Elaborator(self.blocks)
        for name in dims:
            self.scope.values_[name] = elaborator.number_or_word(dims, name, self.scope)
        self.interface = specs.from_tree(tree).interface  # refuses what is wrong outside of the nodes
        if tree.get("outputs") is not None or self.interface.state or self.interface.entries:
            raise NoChainError
        self.named = {name: repr(value) for name, value in (*dims.items(), *self.blocks.items())}
        self.around = repr(tree.get("defaults")), self.interface.name_, repr(self.interface)
        streams = self.interface.streams()
        self.lengths = lengths_of(streams, chain.length)
        values = inputs(streams, batch=chain.batch, lengths=self.lengths, dtype=chain.setting.dtype)
        self.first = first_piece(values)
        self.start = chain.number(self.first.after)
        self.keys: dict[tuple[str, bool], int] = {}
        self._free: dict[str, bool] = {}

    def reads(self, text: str) -> set[str]:
        """The words of a text, of the defaults, and of all that they name."""
        return words([text, self.around[0]], self.named)

    def free(self, text: str) -> bool:
        """Whether a round of that text does not know where it stands."""
        found = self._free.get(text)
        if found is None:
            found = self._free[text] = not self.reads(text) & PLACE
        return found

    def bodies(self, raw: Any) -> list[Any] | None:
        """The rounds of a `repeat` that does nothing but repeat; None for anything else."""
        if not isinstance(raw, Map) or raw.get("kind") != "repeat" or not raw.keys() <= PLAIN:
            return None
        times, rounds = raw.get("times"), raw.get("rounds")
        if isinstance(rounds, Seq) and len(raw.keys() & {"times", "body"}) == 0:
            return [body for body in rounds if body != "absent"]
        if isinstance(times, str):
            times = self.scope.get(times)
        if type(times) is not int or rounds is not None or "body" not in raw:
            return None
        return [raw["body"]] * times


class Chain:
    """Prices trees under one setting.

    Errors:
        SpecError: an unknown dtype, device or phase.
    """

    def __init__(
        self, *, batch: int, length: int | None, dtype: str, device: str, phase: Phase, context: int | None
    ) -> None:
        self.batch, self.length, self.dtype = batch, length, dtype
        self.setting = setting(dtype=dtype, device=device, phase=phase, context=context)
        self.contexts: dict[tuple[str, ...], Context | None] = {}
        self.known: dict[tuple[str, ...], reuse.Found] = {}  # rounds that were elaborated
        self.states: list[State] = []
        self._numbers: dict[State, int] = {}
        self._keys: dict[tuple[Any, ...], int] = {}
        self._pieces: dict[tuple[int, int], Found] = {}
        self._ends: dict[tuple[int, str], Piece | SpecError] = {}

    def price(self, tree: Map, text: Text = repr) -> Cost | SpecError:
        """The cost of a tree, or why the language refuses it.

        Args:
            text: of a part of the tree; the same text for the same content.
        """
        try:
            total = self._total(tree, text)
            return total if total is not None else self._whole(tree, text)
        except SpecError as error:
            return error

    def _whole(self, tree: Map, text: Text) -> Cost:
        spec = specs.from_tree(tree, reuse.Rounds(self.known.setdefault(_around(tree, text), {}), text))
        cost = price(
            spec, batch=self.batch, length=self.length, dtype=self.dtype, device=self.setting.name,
            phase=self.setting.phase, context=self.setting.context,
        )  # fmt: skip
        return replace(cost, rows=())

    def _total(self, tree: Map, text: Text) -> Cost | None:
        """The sum over the pieces; None if the tree is no chain, or if something is wrong with it."""
        graph = tree.get("graph")
        if not isinstance(graph, Seq) or not _named_once(graph):
            return None
        context = self.context(tree, text)
        if context is None:
            return None
        total = Total(self.setting)
        total.add(context.first)
        state = context.start
        for link in links(graph, context, text):
            found = self.piece(link, context, state)
            if not isinstance(found, tuple):
                return None  # elaborated as a whole, the tree says what is wrong, if anything is
            total.add(found[0])
            state = found[1]
        end = self.end(context, state)
        if not isinstance(end, Piece):
            return None
        total.add(end)
        return total.cost(self.batch, context.lengths, self.dtype)

    def context(self, tree: Map, text: Text = repr) -> Context | None:
        """What the tree's pieces may name; None if no tree with it is a chain.

        Errors:
            SpecError: the language refuses the tree.
        """
        key = _around(tree, text)
        if key not in self.contexts:
            try:
                self.contexts[key] = Context(tree, self)
            except NoChainError:
                self.contexts[key] = None
        return self.contexts[key]

    def number(self, state: State) -> int:
        """The number of a state."""
        found = self._numbers.get(state)
        if found is None:
            found = self._numbers[state] = len(self.states)
            self.states.append(state)
        return found

    def piece(self, link: Link, context: Context, state: int) -> Found:
        """A piece, and the number of the state after it; or why it cannot be priced by itself."""
        place = link.text, link.round
        key = context.keys.get(place)
        if key is None:
            names = sorted(context.reads(link.text) & context.named.keys())
            content = (place, context.around, *((name, context.named[name]) for name in names))
            key = context.keys[place] = self._keys.setdefault(content, len(self._keys))
        try:
            return self._pieces[key, state]
        except KeyError:
            found = self._pieces[key, state] = self._piece(link, context, self.states[state])
            return found

    def _piece(self, link: Link, context: Context, state: State) -> Found:
        raw = Map({"kind": "repeat", "rounds": Seq([link.raw])}) if link.round else link.raw
        try:
            found = piece(raw, context.blocks, context.scope, context.interface, state, self.setting)
        except (NoChainError, SpecError) as error:
            return error
        return found, self.number(found.after)

    def end(self, context: Context, state: int) -> Piece | SpecError:
        """The training loss; or why the interface refuses what the last piece gives."""
        key = state, context.around[2]
        if key not in self._ends:
            given = self.states[state]
            try:
                context.interface.check({"out": given.stream})
                self._ends[key] = last_piece(context.interface, given, self.setting)
            except Refused as refused:
                self._ends[key] = SpecError(Problem(refused.cause, refused.hint))
        return self._ends[key]


def _around(tree: Map, text: Text) -> tuple[str, ...]:
    """All of a tree but its nodes."""
    return tuple(name + text(value) for name, value in tree.items() if name not in APART)


def links(graph: Iterable[Any], context: Context, text: Text) -> Iterator[Link]:
    """The nodes of a graph, and the rounds of those that can be taken one by one."""
    for raw in graph:
        bodies = context.bodies(raw)
        texts = [text(body) for body in bodies] if bodies is not None else []
        if bodies is not None and all(map(context.free, texts)):
            yield from (Link(body, own, True) for body, own in zip(bodies, texts, strict=True))
        else:
            yield Link(raw, text(raw), False)


def words(texts: list[str], named: Mapping[str, str]) -> set[str]:
    """The words of some texts, and of the texts that they name."""
    found: set[str] = set()
    todo = list(texts)
    while todo:
        new = set(_WORD.findall(todo.pop())) - found
        found |= new
        todo += [named[word] for word in new if word in named]
    return found


def _named_once(graph: Seq) -> bool:
    names = [raw["name"] for raw in graph if isinstance(raw, Map) and "name" in raw]
    if not names:
        return True
    kinds = {raw.get("kind") if isinstance(raw, Map) else raw for raw in graph if not isinstance(raw, Seq)}
    return len(set(names)) == len(names) and kinds.isdisjoint(names)
