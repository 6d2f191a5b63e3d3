"""What a measured block costs, as plain data: its operators, its peaks, and how its tensors hang together.

`search.cost.meter` fills it in; no tensor is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch

Phase = Literal["forward", "backward"]
Work = Literal["product", "attention", "convolution", "traffic", "view"]


@dataclass(frozen=True, slots=True)
class Operator:
    """A row of an operator table: what one execution costs, and how often it is executed.

    Attributes:
        name: as ``aten.mm``.
        dtype: of its first floating-point tensor, else of its first tensor, as ``bfloat16``.
        flops: one multiply-add is 2.
        read, written: bytes.
        weights: bytes of `read` that belong to parameters and buffers.
        priced: False if nobody knows its FLOPs, so that only its bytes count.
        work: what kind of kernel it is; a view makes nothing and costs its call alone.
        shape: of a product or convolution (groups, m, k, n), each group [m, k] by [k, n]; of attention (batch * heads,
            queries, keys, width, 1 if causal else 0); of traffic (1,) where its tensors lie in memory each in its own
            way, so that no kernel runs straight through them; else empty.
    """

    name: str
    phase: Phase
    dtype: str
    flops: int
    read: int
    written: int
    weights: int
    priced: bool = True
    work: Work = "traffic"
    shape: tuple[int, ...] = ()
    count: int = 1


Table = tuple[Operator, ...]


class Given(NamedTuple):
    """A tensor that a node is given."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    graded: bool


@dataclass(frozen=True, slots=True)
class Result:
    """A tensor that a block gives.

    Attributes:
        graded: whether it requires a gradient.
        storage: where it lies: ``~n`` in the storage of input n, None in that of a weight, else the number of a storage
            of the block's own.
        size: bytes of that storage.
        saved: whether autograd keeps that storage.
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    graded: bool
    storage: int | None
    size: int
    saved: bool


@dataclass(frozen=True, slots=True)
class Flow:
    """How a block hangs together with what comes before and after it.

    Attributes:
        inference, training: its results in either form.
        saved: numbers of the inputs that autograd keeps.
        reached: numbers of the inputs that get a gradient.
        peak_forward, peak_backward: the two halves of ``peak_training``.
        peak_gradients: of the backward pass with the gradients of weights, each from when it is made.
    """

    inference: tuple[Result, ...] = ()
    training: tuple[Result, ...] = ()
    saved: tuple[int, ...] = ()
    reached: tuple[int, ...] = ()
    peak_forward: int = 0
    peak_backward: int = 0
    peak_gradients: int = 0


@dataclass(frozen=True, slots=True)
class BlockCost:
    """What a block costs.

    Peaks are bytes above all that was live before the block, so that a model's peak is the largest over its blocks of
    the block's peak and what the other blocks and the streams between them hold meanwhile.

    Attributes:
        inference: operators of a forward pass without gradients.
        training: operators of a forward and a backward pass; empty if not measured.
        peak_inference: most bytes live at once above weights and inputs, results included.
        peak_training: the same over forward and backward; gradients of weights excluded, those of streams included.
        saved: bytes that autograd keeps from forward to backward, weights and inputs excluded.
    """

    inference: Table = ()
    training: Table = ()
    peak_inference: int = 0
    peak_training: int = 0
    saved: int = 0
    flow: Flow = Flow()

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Names of the operators whose FLOPs nobody knows."""
        return tuple(sorted({row.name for row in self.inference + self.training if not row.priced}))


def flops(table: Iterable[Operator], phase: Phase | None = None) -> int:
    """FLOPs of a table, or of one of its phases."""
    return sum(row.flops * row.count for row in table if phase is None or row.phase == phase)


def merge(table: Iterable[Operator]) -> Table:
    """One row for equal ones, in order of first appearance."""
    counts: Counter[Operator] = Counter()
    for row in table:
        counts[row if row.count == 1 else replace(row, count=1)] += row.count
    return tuple(row if count == 1 else replace(row, count=count) for row, count in counts.items())
