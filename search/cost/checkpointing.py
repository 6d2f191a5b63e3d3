"""A training step that keeps less: activation checkpointing (Chen et al. 2016, arXiv 1604.06174).

Each row of a model, that is a top-level node or a round of one, keeps what it was given and nothing of what it does;
in the backward pass it is run again. While a row goes backward, there are

    what it and the rows before it were given + gradients that wait for rows before it
    + gradients of the weights of later rows + its own peak, from the start of its second run
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from search.cost.block import flops
from search.cost.memory import training
from search.cost.passes import owned
from search.cost.steps import Step, Steps
from search.cost.wires import Storage, Value, Wire


class Checkpointed(NamedTuple):
    """Bytes beside weights, optimizer states and inputs, and the FLOPs of what is run again.

    Attributes:
        kept: from the forward to the backward pass.
    """

    peak: int
    kept: int
    flops: int


def checkpointed(work: Steps) -> Checkpointed:
    """What a training step needs in which every row is run again; the loss is not."""
    steps = [*work.steps, *([work.loss] if work.loss else [])]
    rows, start = [], 0
    for _, members in groupby(steps, key=lambda step: step.row):
        stop = start + len(list(members))
        rows.append((start, stop))
        start = stop
    row_of = [number for number, (start, stop) in enumerate(rows) for _ in range(start, stop)]
    readers: dict[Storage, list[int]] = {}
    waiting: dict[int, tuple[int, int, int]] = {}  # by wire: bytes of its gradient, its row, the last that gives some
    for number, step in enumerate(steps):
        for wire in step.inputs:
            storage = wire.training
            if storage is not None and storage.made >= 0 and row_of[storage.made] < row_of[number]:
                readers.setdefault(storage, []).append(row_of[number])
        for place in step.unit.cost.flow.reached:
            wire = step.inputs[place]
            waiting[id(wire)] = wire.bytes, row_of[wire.made] if wire.made >= 0 else -1, row_of[number]
    peak = 0
    for number, (start, stop) in enumerate(rows):
        given = sum(storage.size for storage, rows_ in readers.items() if min(rows_) <= number)
        pending = sum(size for size, made, last in waiting.values() if made < number < last)
        later = _gradients(steps[stop:])
        peak = max(peak, given + pending + later + training(_cut(work, steps, start, stop)).peak)
    again = sum(flops(step.unit.cost.training, "forward") for step in work.steps)
    return Checkpointed(peak, sum(storage.size for storage in readers), again)


def _gradients(steps: Sequence[Step]) -> int:
    """Bytes of the gradients of the weights that some steps use."""
    tied = {(step.node.tied,) for step in steps if step.node is not None and step.node.tied}
    mine = owned(steps)
    known = {step.weights for step in mine}
    tables = sum(
        step.node.output.width * step.node.types[0].width * step.inputs[0].given.dtype.itemsize
        for step in steps
        if step.node is not None and step.node.tied and (step.node.tied,) in tied - known
    )
    return tables + sum(step.unit.gradients for step in mine)


def _cut(work: Steps, steps: Sequence[Step], start: int, stop: int) -> Steps:
    """Some steps alone: what comes from before is the caller's, what is read later is an output."""
    storages: dict[int, Storage] = {}
    wires: dict[int, Wire] = {}

    def storage(old: Storage | None) -> Storage | None:
        if old is None:
            return None
        if id(old) not in storages:
            inside = old.made >= start
            storages[id(old)] = Storage(old.size if inside else 0, old.made - start if inside else -1)
        return storages[id(old)]

    def wire(old: Wire) -> Wire:
        if id(old) not in wires:
            made = old.made - start if old.made >= start else -1
            wires[id(old)] = Wire(old.given, storage(old.inference), storage(old.training), made)
        return wires[id(old)]

    members = [
        replace(step, inputs=tuple(map(wire, step.inputs)), results=tuple(map(wire, step.results)))
        for step in steps[start:stop]
    ]
    outputs = [one for value in work.outputs.values() for one in value.wires]
    read_later = [*outputs, *(one for step in steps[stop:] for one in step.inputs)]
    onward = {id(one): one for one in read_later if start <= one.made < stop}
    stream = next(iter(work.outputs.values())).stream
    return Steps(
        inputs=[],
        steps=members,
        outputs={"": Value(stream, tuple(map(wire, onward.values())))},
        held=[(wire(one), number - start) for one, number in work.held if start <= one.made <= number < stop],
    )
