"""Bytes that are live at once while a spec runs: each step's own peak, on top of what the others hold meanwhile.

Inference: a tensor lives from the step that makes it to the last that reads it; what a round is handed and what it
hands back lives until it returns. Training, forward: what autograd keeps of earlier steps lives as well. Backward, a
step finds

    what autograd keeps inside earlier steps + streams that these or itself keep + gradients that wait for earlier steps
    + gradients of the weights of later steps

and adds its own peak, in which are what is kept inside it, the gradients of its results and those of its weights, as
they come: there is none when a training step begins. Weights, optimizer states and the model's inputs come on top of
both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from search.cost.steps import Place, Steps
from search.cost.wires import Storage, Wire


class _Span:
    """Bytes that are live during some steps, as the changes from one step to the next."""

    def __init__(self, steps: int) -> None:
        self.changes = [0] * (steps + 1)

    def add(self, size: int, first: int, last: int) -> None:
        """Bytes that are live from step ``first`` to step ``last``, both included."""
        if first <= last:
            self.changes[first] += size
            self.changes[last + 1] -= size

    def sizes(self) -> list[int]:
        return list(accumulate(self.changes))[:-1]


def inference_peak(work: Steps) -> int:
    """Most bytes of a forward pass without gradients, beside weights and the model's inputs."""
    last: dict[Storage, int] = {}
    for number, step in enumerate(work.steps):
        if step.training:
            continue
        for wire in (*step.results, *step.inputs):
            if wire.inference is not None:
                last[wire.inference] = number
    for wire, number in (*work.held, *_onward(work, len(work.steps) - 1)):
        if wire.inference in last:
            last[wire.inference] = max(last[wire.inference], number)
    live = _Span(len(work.steps))
    for storage, number in last.items():
        live.add(storage.size, storage.made + 1, number)
    before = live.sizes()
    return max((before[n] + s.unit.cost.peak_inference for n, s in enumerate(work.steps) if not s.training), default=0)


class Training(NamedTuple):
    """A forward and a backward pass through some steps.

    Attributes:
        forward, backward: most bytes of each step, beside weights, optimizer states and inputs.
        inside: bytes that autograd keeps inside the steps.
        kept: what it keeps between them, of what they were given and of what they give.
    """

    forward: list[int]
    backward: list[int]
    inside: int
    kept: frozenset[Storage]

    @property
    def peak(self) -> int:
        return max((*self.forward, *self.backward), default=0)


def training(work: Steps, kept_before: Iterable[Storage] = ()) -> Training:
    """What a training step needs.

    Args:
        kept_before: what earlier steps keep of what these are given.
    """
    steps = [*work.steps, *([work.loss] if work.loss else [])]
    end = len(steps) - 1
    kept = dict.fromkeys(kept_before, -1)
    last = dict(kept)
    waiting: dict[int, tuple[int, int, int]] = {}  # by wire: bytes of its gradient, its step, the last that gives some
    forward, backward = _Span(len(steps)), _Span(len(steps))
    total = 0
    for number, step in enumerate(steps):
        flow = step.unit.cost.flow
        inside = step.unit.cost.saved
        for wire, result in zip(step.results, flow.training, strict=True):
            storage = wire.training
            if storage is None or storage.made != number or storage in last:
                continue
            last[storage] = number
            if result.saved:
                kept[storage] = number
                inside -= storage.size
        for place in flow.saved:
            if (storage := step.inputs[place].training) is not None:
                kept.setdefault(storage, number)
        for wire in step.inputs:
            if wire.training is not None:
                last[wire.training] = number
        for place in flow.reached:
            wire = step.inputs[place]
            waiting[id(wire)] = wire.bytes, wire.made, number
        for pass_ in (forward, backward):
            pass_.add(inside, number + 1, end)
        total += inside
    for wire, number in (*work.held, *_onward(work, end)):
        if wire.training in last:
            last[wire.training] = max(last[wire.training], number)
    for storage, number in last.items():
        forward.add(storage.size, storage.made + 1, end if storage in kept else number)
    for storage, number in kept.items():
        backward.add(storage.size, max(storage.made + 1, number), end)
    for wire, _ in _onward(work, end):
        if wire.given.graded and not (work.loss and wire in work.loss.inputs):
            waiting[id(wire)] = wire.bytes, wire.made, end + 1
    for size, made, number in waiting.values():
        backward.add(size, made + 1, number - 1)
    peaks = _gradients(work, backward)
    return Training(
        [live + step.unit.cost.flow.peak_forward for step, live in zip(steps, forward.sizes(), strict=True)],
        [live + peaks.get(n, steps[n].unit.cost.flow.peak_gradients) for n, live in enumerate(backward.sizes())],
        total,
        frozenset(kept),
    )


def _onward(work: Steps, end: int) -> Iterator[tuple[Wire, int]]:
    """The outputs, which live on."""
    return ((wire, end) for value in work.outputs.values() for wire in value.wires)


def _gradients(work: Steps, backward: _Span) -> dict[int, int]:
    """Adds the gradients of weights, from when they are made to the optimizer's step.

    Those of weights that several steps share autograd sums up, out of place, before it is done: but for the last step,
    there is a sum beside each gradient. Gives the peaks of these steps.
    """
    users: dict[Place, list[int]] = {}
    peaks = {}
    for number, step in enumerate(work.steps):
        users.setdefault(step.weights, []).append(number)
        if step.node is not None and step.node.tied and (step.node.tied,) in users:
            users[step.node.tied,].append(number)
    for numbers in users.values():
        unit = work.steps[numbers[0]].unit
        if len(numbers) == 1:
            backward.add(unit.gradients, 0, numbers[0] - 1)
            continue
        backward.add(unit.shared, 0, numbers[-1] - 1)
        own = {number: work.steps[number].unit.size - work.steps[number].unit.shared for number in numbers}
        for number, size in own.items():
            backward.add(size, 0, number - 1)
        for number in numbers[:-1]:
            unit = work.steps[number].unit
            flow = unit.cost.flow
            # neither the gradients of all weights at once, nor more than one and its sum beside what has none
            most = flow.peak_gradients + unit.widest, flow.peak_backward + own[number] + 2 * unit.widest
            peaks[number] = min(most)
    return peaks
