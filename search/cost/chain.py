"""Many trees priced fast: a tree whose top-level nodes form a chain is a sum over pieces that are priced once.

A piece is a top-level node, or a round of a `repeat` whose rounds do not know their number. Its price is remembered by
its text, the texts of the dims, blocks and defaults that it names (and that those name), the interface, and the state
that it is given. A tree that is no chain (several inputs, edges beside the chain, shared weights, numbers that depend on
depth) is elaborated and priced as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from archspec import spec as specs
from archspec.elaborate import Elaborator
from archspec.errors import Refused, SpecError
from archspec.kinds.interface import Interface
from archspec.scope import Scope
from archspec.source import Map, Seq
from archspec.spec import Spec
from archspec.streams import Stream
from search.cost import devices
from search.cost.pieces import NoChainError, Piece, Setting, State, first_piece, last_piece, piece
from search.cost.price import DTYPES, STATES, Cost, known_device, known_dtype, price, resolve_lengths
from search.cost.steps import inputs

Text = Callable[[Any], str]
OWN = ("graph", "name", "description", "init")  # what does not change the price of a piece
ROUNDS = frozenset({"kind", "name", "times", "body", "rounds"})
KNOWS_ITS_PLACE = frozenset({"index", "times", "depth", "each"})
_WORD = re.compile(r"[A-Za-z_]\w*")


def price_trees(
    trees: Iterable[Map],
    *,
    batch: int = 1,
    length: int | None = None,
    dtype: str = "float32",
    device: str = devices.LOCAL,
) -> list[Cost | SpecError]:
    """Prices resolved trees (as `archspec.spec.from_tree` takes them), exactly as `price` does but without rows.

    What the language refuses is returned as its error.
    """
    chain = _chain(batch, length, dtype, device)
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
def _chain(batch: int, length: int | None, dtype: str, device: str) -> Chain:
    return Chain(batch=batch, length=length, dtype=dtype, device=device)


class Context:
    """All of a tree but its nodes: what a piece may name, and what the model is given.

    Attributes:
        keys: what identifies a piece of a text here; None if it knows its place.
    """

    def __init__(self, tree: Map, chain: Chain) -> None:
        if tree.get("outputs") is not None:
            raise NoChainError
        self.blocks: Map = tree.get("blocks", Map())
        self.dims: Map = tree.get("dims", Map())
        self.scope, self.interface = _scope(tree, self.blocks, self.dims)
        if self.interface.state or self.interface.entries:
            raise NoChainError
        self.shared = repr(tree.get("defaults")), self.interface.name_, repr(self.interface)
        self.named = {name: repr(value) for name, value in (*self.dims.items(), *self.blocks.items())}
        streams = self.interface.streams()
        self.lengths = resolve_lengths(streams, chain.length)
        values = inputs(streams, batch=chain.batch, lengths=self.lengths, dtype=chain.setting.dtype)
        self.first = first_piece(values)
        self.start = chain.number(self.first.after)
        self.keys: dict[str, int] = {}
        self.rounds: dict[str, bool] = {}

    def reads(self, text: str) -> frozenset[str]:
        """The words of a text and of all that they name."""
        words: set[str] = set()
        todo = [text, self.shared[0]]
        while todo:
            new = set(_WORD.findall(todo.pop())) - words
            words |= new
            todo += [self.named[word] for word in new if word in self.named]
        return frozenset(words)


class Chain:
    """Prices trees under one setting.

    Errors:
        SpecError: an unknown dtype or device.
    """

    def __init__(self, *, batch: int, length: int | None, dtype: str, device: str) -> None:
        self.batch, self.length, self.dtype, self.device = batch, length, dtype, device
        self.setting = Setting(known_dtype(dtype), known_device(device), device)
        self.contexts: dict[tuple[str, ...], Context | None] = {}
        self.states: dict[State, int] = {}
        self.state: list[State] = []
        self.keys: dict[tuple[Any, ...], int] = {}
        self.pieces: dict[tuple[int, int], tuple[Piece, int] | None] = {}
        self.ends: dict[tuple[int, str], Piece | None] = {}

    def number(self, state: State) -> int:
        """A small number for a state."""
        found = self.states.get(state)
        if found is None:
            found = self.states[state] = len(self.state)
            self.state.append(state)
        return found

    def price(self, tree: Map, text: Text = repr) -> Cost | SpecError:
        """The cost of a tree, or why the language refuses it."""
        try:
            total = self._total(tree, text)
            if total is not None:
                return total
            return self._whole(tree)
        except SpecError as error:
            return error

    def _whole(self, tree: Map) -> Cost:
        spec = specs.from_tree(tree)
        whole = price(spec, batch=self.batch, length=self.length, dtype=self.dtype, device=self.device)
        return without_rows(whole)

    def _total(self, tree: Map, text: Text) -> Cost | None:
        """The sum over the pieces; None if the tree is no chain, or if something is wrong with it."""
        context = self.context(tree, text)
        graph = tree.get("graph")
        if context is None or not isinstance(graph, Seq) or not graph or not _named_once(graph):
            return None
        total = Total(len(self.setting.device.memory))
        total.add(context.first)
        state = context.start
        for raw in self.split(graph, context, text):
            found = self.piece(raw, text(raw), context, state)
            if found is None:
                return None
            one, state = found
            total.add(one)
        end = self.end(context, state)
        if end is None:
            return None
        total.add(end)
        return total.cost(self, context)

    def context(self, tree: Map, text: Text) -> Context | None:
        """What the tree's pieces may name; None if it has no chain."""
        key = tuple(text(value) for name, value in tree.items() if name not in OWN)
        if key not in self.contexts:
            specs.from_tree(tree)  # refuses what is wrong outside of the nodes
            try:
                self.contexts[key] = Context(tree, self)
            except NoChainError:
                self.contexts[key] = None
        return self.contexts[key]

    def split(self, graph: Iterable[Any], context: Context, text: Text) -> Iterator[Any]:
        """The nodes of a graph, and the rounds of those that can be taken one by one."""
        for raw in graph:
            rounds = bodies(raw, context)
            if rounds is None or not all(self.free(body, context, text) for body in rounds[:1] or ()):
                yield raw
            elif not all(self.free(body, context, text) for body in rounds):
                yield raw
            else:
                yield from (alone(body) for body in rounds)

    def free(self, body: Any, context: Context, text: Text) -> bool:
        """Whether a round does not know its number."""
        word = text(body)
        found = context.rounds.get(word)
        if found is None:
            found = context.rounds[word] = not context.reads(word) & KNOWS_ITS_PLACE
        return found

    def piece(self, raw: Any, text: str, context: Context, state: int) -> tuple[Piece, int] | None:
        """A piece and the number of the state after it; None if it cannot be priced by itself."""
        key = context.keys.get(text)
        if key is None:
            names = sorted(context.reads(text) & context.named.keys())
            content = (text, context.shared, *((name, context.named[name]) for name in names))
            key = context.keys[text] = self.keys.setdefault(content, len(self.keys))
        try:
            return self.pieces[key, state]
        except KeyError:
            found = self.pieces[key, state] = self._piece(raw, context, state)
            return found

    def _piece(self, raw: Any, context: Context, state: int) -> tuple[Piece, int] | None:
        given = self.state[state]
        try:
            found = piece(raw, context.blocks, context.scope, context.interface, given, self.setting)
        except (NoChainError, SpecError):
            return None  # the whole tree tells what is wrong, if anything is
        return found, self.number(found.after)

    def end(self, context: Context, state: int) -> Piece | None:
        """The loss; None if the interface refuses what the last piece gives."""
        key = state, context.shared[2]
        if key not in self.ends:
            given = self.state[state]
            try:
                context.interface.check({"out": given.stream})
                self.ends[key] = last_piece(context.interface, given, self.setting)
            except Refused:
                self.ends[key] = None
        return self.ends[key]


def bodies(raw: Any, context: Context) -> list[Any] | None:
    """The rounds of a `repeat` that does nothing but repeat; None for anything else."""
    if not isinstance(raw, Map) or raw.get("kind") != "repeat" or not raw.keys() <= ROUNDS:
        return None
    rounds, times = raw.get("rounds"), raw.get("times")
    if isinstance(rounds, Seq) and times is None and "body" not in raw:
        return [body for body in rounds if body != "absent"]
    if isinstance(times, str):
        times = context.scope.get(times)
    if rounds is not None or "body" not in raw or not isinstance(times, int) or isinstance(times, bool):
        return None
    return [raw["body"]] * times


@lru_cache(maxsize=1)
def _repeat() -> Map:
    return Map({"kind": "repeat"})


def alone(body: Any) -> Map:
    """One round."""
    return Map({"kind": "repeat", "rounds": Seq([body])})


def without_rows(cost: Cost) -> Cost:
    from dataclasses import replace

    return replace(cost, rows=())


def _named_once(graph: Seq) -> bool:
    names = [raw["name"] for raw in graph if isinstance(raw, Map) and "name" in raw]
    others = {raw.get("kind") if isinstance(raw, Map) else raw for raw in graph if not isinstance(raw, Seq)}
    return len(set(names)) == len(names) and not others & set(names)


def _scope(tree: Map, blocks: Map, dims: Map) -> tuple[Scope, Interface]:
    """The file's numbers and defaults, and its interface; the file is known to be right outside of its nodes."""
    elaborator = Elaborator(blocks)
    scope = Scope()
    scope.defaults = dict(tree.get("defaults", {}))
    interface = specs._interface(elaborator, tree, scope)
    for name in dims:
        scope.values_[name] = elaborator.number_or_word(dims, name, scope)
    return scope, interface


@dataclass(slots=True)
class Total:
    """Pieces added up in their order."""

    levels: int

    def __post_init__(self) -> None:
        pass
