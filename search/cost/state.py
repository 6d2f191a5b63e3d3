"""What a piece of a chain is given by the pieces before it: a stream, its tensors, and the storages that are live."""

from __future__ import annotations

from typing import NamedTuple

from archspec.streams import Stream
from search.cost.block import Given
from search.cost.wires import Storage, Value, Wire

Storages = tuple[list[Storage], list[Storage]]  # of inference, and of training
Lives = tuple[tuple[Storage | None, Storage | None], ...]  # of inference and of training


class Tensor(NamedTuple):
    """A tensor of a state, and the numbers of the storages in which it lies; None for a weight's."""

    given: Given
    inference: int | None
    training: int | None


class Table(NamedTuple):
    """A token embedding's table, which a head may use."""

    name: str
    rows: int
    width: int
    size: int


class Held(NamedTuple):
    """The numbers of the storages of a tensor that a round was given, which lives until the round is over."""

    inference: int | None
    training: int | None


class State(NamedTuple):
    """What a piece is given.

    Attributes:
        inference, training: bytes of storages, 0 for the caller's; those of training with whether autograd keeps them.
        tables: embeddings before.
        held: for each round that the piece is a part of, from outside to inside, what it was given.
    """

    stream: Stream
    tensors: tuple[Tensor, ...]
    inference: tuple[int, ...]
    training: tuple[tuple[int, bool], ...]
    tables: tuple[Table, ...] = ()
    held: tuple[tuple[Held, ...], ...] = ()


def entered(state: State) -> State:
    """The state at the begin of a round that is made of pieces."""
    held = tuple(Held(one.inference, one.training) for one in state.tensors)
    return state._replace(held=(*state.held, held))


def left(state: State) -> State:
    """The state after a round that was made of pieces."""
    value, storages = value_of(state)
    return state_of(value, frozenset(kept_by(state, storages)), state.tables, held_by(state, storages)[:-1])


def value_of(state: State) -> tuple[Value, Storages]:
    """The stream of a state, and its storages."""
    inference = [Storage(size, -1) for size in state.inference]
    kept = [Storage(size, -1) for size, _ in state.training]
    wires = tuple(
        Wire(
            one.given,
            None if one.inference is None else inference[one.inference],
            None if one.training is None else kept[one.training],
            -1,
        )
        for one in state.tensors
    )
    return Value(state.stream, wires), (inference, kept)


def held_by(state: State, storages: Storages) -> tuple[Lives, ...]:
    """What rounds were given, in inference and in training."""

    def one(storages: list[Storage], number: int | None) -> Storage | None:
        return None if number is None else storages[number]

    inference, trained = storages
    return tuple(tuple((one(inference, a), one(trained, b)) for a, b in held) for held in state.held)


def kept_by(state: State, storages: Storages) -> list[Storage]:
    """The storages that autograd keeps."""
    return [storage for storage, (_, kept) in zip(storages[1], state.training, strict=True) if kept]


def state_of(out: Value, kept: frozenset[Storage], tables: tuple[Table, ...], held: tuple[Lives, ...] = ()) -> State:
    """The state in which a stream is handed on.

    Args:
        kept: the storages that autograd keeps.
        held: what rounds were given that are not over.
    """
    inference: dict[Storage, int] = {}
    trained: dict[Storage, int] = {}

    def number(storages: dict[Storage, int], storage: Storage | None) -> int | None:
        return None if storage is None else storages.setdefault(storage, len(storages))

    tensors = tuple(
        Tensor(wire.given, number(inference, wire.inference), number(trained, wire.training)) for wire in out.wires
    )
    onward = set(trained)
    lives = tuple(  # what autograd keeps of what is left behind is counted by now
        tuple(
            Held(number(inference, a), None if b in kept and b not in onward else number(trained, b)) for a, b in pairs
        )
        for pairs in held
    )
    return State(
        out.stream,
        tensors,
        tuple(storage.size for storage in inference),
        tuple((storage.size, storage in kept) for storage in trained),
        tables,
        lives,
    )
