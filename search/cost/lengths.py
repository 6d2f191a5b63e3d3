"""Runs that are too long to be written down: a loop over the tokens is run a few rounds, and the rest follows.

A block with more operators than `LONG` is run at four short lengths that differ by what its loop takes at a time, which
is one of the sizes of the tensors inside it. What such runs have in common (`search.cost.recording`) tells what happens
at the length asked for. It is believed if it also tells what happens at a length several times longer, to the byte, and
how the run that was given up began; or else the run is written down as long as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod

from archspec.streams import Stream
from compiler.tokens import suffixes
from search.cost.block import BlockCost, Given
from search.cost.meter import LongRun
from search.cost.recording import Irregular, Recording, Series

LONG = 1_500  # operators of inference
LEAST, ROUNDS = 32, 4  # tokens and rounds of the shortest run
FAR = 16  # more rounds of the run that is foretold to be believed
LARGEST = 512  # tokens that a loop takes at a time


Record = Callable[[Sequence[Given], bool, int | None], Recording]


def cost_of(record: Record, streams: Sequence[Stream], given: Sequence[Given]) -> BlockCost:
    """The cost of a block at a length.

    Args:
        record: runs the block on tensors: whether it trains, and the most operators.
        streams: the types of what it is given, tensors and all.
    """
    try:
        return record(given, True, LONG).cost()
    except LongRun as long:
        foretold = _foretold(record, streams, given, long)
        return foretold if foretold is not None else record(given, True, None).cost()


def _foretold(record: Record, streams: Sequence[Stream], given: Sequence[Given], long: LongRun) -> BlockCost | None:
    length = _length(streams, given)
    if length is None:
        return None
    for stride in sorted(size for size in long.sizes | {1} if size <= LARGEST):
        shortest = length % stride + stride * max(ROUNDS, -(-LEAST // stride))
        rounds = (length - shortest) // stride
        if rounds <= FAR + 3:
            continue

        def run(more: int, train: bool = True, stride: int = stride, shortest: int = shortest) -> Recording:
            return record([*_resized(streams, given, shortest + more * stride)], train, None)

        few, more = (len(run(number, False).inference) for number in range(2))
        if few >= more or len(run(2, False).inference) - more != more - few:
            continue
        try:
            series = Series([run(number) for number in range(4)])
            if series.begins(long.rows, rounds) and series.at(FAR + 3) == run(FAR + 3).cost():
                return series.at(rounds)
        except Irregular:
            continue
    return None


def _length(streams: Sequence[Stream], given: Sequence[Given]) -> int | None:
    """The one open length of some streams; None if there are several, or tensors that do not follow from it."""
    names = {axis.size for stream in streams for span in stream.spans for axis in span.axes} - _whole(streams)
    if len(names) != 1:
        return None
    (name,) = names
    for stream, tensors in _by_stream(streams, given):
        none, one, two = (count(stream, {str(name): number}) for number in range(3))
        if one > none and two - one == one - none:
            length = (tensors[0].shape[1] - none) // (one - none)
            try:
                same = [*_resized(streams, given, length)] == [*given]
            except Irregular:
                return None
            return length if same else None
    return None


def _whole(streams: Sequence[Stream]) -> set[int | str]:
    sizes = {axis.size for stream in streams for span in stream.spans for axis in span.axes}
    return {size for size in sizes if isinstance(size, int)}


def _resized(streams: Sequence[Stream], given: Sequence[Given], length: int) -> Iterator[Given]:
    """The same tensors at another length.

    Errors:
        Irregular: the elements of one lie in a way that does not tell where they would lie then.
    """
    for stream, tensors in _by_stream(streams, given):
        names = {str(axis.size) for span in stream.spans for axis in span.axes}
        tokens = count(stream, dict.fromkeys(names, length))
        for tensor in tensors:
            if not stream.spans:
                yield tensor
                continue
            shape = (tensor.shape[0], tokens, *tensor.shape[2:])
            order = sorted(range(len(shape)), key=lambda at: (-tensor.stride[at], at))
            if _laid_out(tensor.shape, order) != tensor.stride:
                raise Irregular
            yield tensor._replace(shape=shape, stride=_laid_out(shape, order))


def _laid_out(shape: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense tensor, its axes from the outermost to the innermost in that order."""
    strides, size = [0] * len(shape), 1
    for at in reversed(order):
        strides[at] = size
        size *= shape[at]
    return tuple(strides)


def _by_stream(streams: Sequence[Stream], given: Sequence[Given]) -> Iterator[tuple[Stream, Sequence[Given]]]:
    start = 0
    for stream in streams:
        stop = start + len(suffixes(stream))
        yield stream, given[start:stop]
        start = stop


def count(stream: Stream, lengths: Mapping[str, int]) -> int:
    """Tokens of a stream."""
    total = 0
    for span in stream.spans:
        total += prod(axis.size if isinstance(axis.size, int) else lengths[axis.size] for axis in span.axes)
    return total
