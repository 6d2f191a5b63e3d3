"""The tensors between the steps of a spec: what they are, and the storages in which they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch

from archspec.streams import Stream
from compiler.tokens import suffixes
from search.cost.block import Given
from search.cost.lengths import count
from search.cost.unit import Unit


@dataclass(eq=False, slots=True)
class Storage:
    """Bytes that tensors lie in, from the step that makes them; -1 for what is there before all steps."""

    size: int
    made: int


@dataclass(eq=False, slots=True)
class Wire:
    """A tensor between steps; where it lies in inference and in training, None for a weight's own storage."""

    given: Given
    inference: Storage | None
    training: Storage | None
    made: int

    @property
    def bytes(self) -> int:
        """Of its elements, as its gradient has them."""
        return prod(self.given.shape) * self.given.dtype.itemsize


class Value(NamedTuple):
    """What stands at a port: a type and its tensors."""

    stream: Stream
    wires: tuple[Wire, ...]


Values = dict[tuple[str, str], Value]  # by node and port


def inputs(
    streams: Mapping[str, Stream], *, batch: int, lengths: Mapping[str, int], dtype: torch.dtype, decoding: bool = False
) -> Values:
    """What a model is given; while it decodes, one token of a causal input."""
    values: Values = {}
    for name, stream in streams.items():
        wires = []
        for suffix in suffixes(stream):
            tokens = [] if not stream.spans else [1 if decoding and stream.causal else count(stream, lengths)]
            features = suffix == "" and stream.content == "features"
            shape = (batch, *tokens, stream.width) if features else (batch, *tokens)
            wires.append(caller_s(shape, dtype if features else torch.bool if suffix == "_valid" else torch.int64))
        values[name, ""] = Value(stream, tuple(wires))
    return values


def caller_s(shape: tuple[int, ...], dtype: torch.dtype) -> Wire:
    """A tensor that the caller hands over, and holds."""
    strides = []
    size = 1
    for length in reversed(shape):
        strides.append(size)
        size *= length
    storage = Storage(0, -1)  # the caller's
    return Wire(Given(shape, tuple(reversed(strides)), dtype, False), storage, storage, -1)


def results(unit: Unit, inputs: tuple[Wire, ...], made: int) -> tuple[Wire, ...]:
    """What a unit gives as the step of that number."""
    storages: list[dict[int, Storage]] = [{}, {}]
    wires = []
    flow = unit.cost.flow
    for number, result in enumerate(flow.training):
        lies: list[Storage | None] = []
        for form, results in enumerate((flow.inference, flow.training)):
            one = results[number] if number < len(results) else result  # a loss that only training has
            if one.storage is None:
                lies.append(None)
            elif one.storage < 0:
                wire = inputs[~one.storage]
                lies.append(wire.training if form else wire.inference)
            else:
                lies.append(storages[form].setdefault(one.storage, Storage(one.size, made)))
        given = Given(result.shape, result.stride, result.dtype, result.graded)
        wires.append(Wire(given, lies[0], lies[1], made))
    return tuple(wires)
