"""Bytes that are live at once while a spec runs: each step's own peak, on top of what the others hold meanwhile.

Inference: a tensor lives from the step that makes it to the last that reads it; what a round is handed and what it
hands back lives until it returns. Training, forward: what autograd keeps of earlier steps lives as well. Backward, a
step finds

    what autograd keeps inside earlier steps + streams that these or itself keep + gradients that wait for earlier steps

and adds its own peak, in which are what is kept inside it and the gradients of its results. Weights, their gradients,
optimizer states and the model's inputs come on top of both.
"""

from __future__ import annotations

from itertools import accumulate

from search.cost.steps import Place, Steps, Storage


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
    """Most bytes of a forward pass without gradients, beside weights and inputs."""
    last: dict[Storage, int] = {}
    for number, step in enumerate(work.steps):
        if step.training:
            continue
        for result in step.results:
            if result.inference is not None:
                last.setdefault(result.inference, number)
        for wire in step.inputs:
            if wire.inference is not None:
                last[wire.inference] = number
    for wire, number in work.held:
        if wire.inference in last:
            last[wire.inference] = max(last[wire.inference], number)
    live = _Span(len(work.steps))
    for storage, number in last.items():
        if storage.made >= 0:
            live.add(storage.size, storage.made + 1, number)
    before = live.sizes()
    return max((before[n] + s.unit.cost.peak_inference for n, s in enumerate(work.steps) if not s.training), default=0)


def training_peak(work: Steps) -> int:
    """Most bytes of a forward and a backward pass, beside weights, their gradients, optimizer states and inputs."""
    steps = [*work.steps, *([work.loss] if work.loss else [])]
    last: dict[Storage, int] = {}
    kept: dict[Storage, int] = {}
    waiting: dict[int, tuple[int, int, int]] = {}  # by wire: bytes of its gradient, its step, the last that gives some
    forward, backward = _Span(len(steps)), _Span(len(steps))
    for number, step in enumerate(steps):
        flow = step.unit.cost.flow
        inside = step.unit.cost.saved
        seen = set()
        for wire, result in zip(step.results, flow.training, strict=True):
            storage = wire.training
            if storage is None or storage.made != number or storage in seen:
                continue
            seen.add(storage)
            last.setdefault(storage, number)
            if result.saved:
                kept.setdefault(storage, number)
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
        forward.add(inside, number + 1, len(steps) - 1)
        backward.add(inside, number + 1, len(steps) - 1)
    for wire, number in work.held:
        if wire.training in last:
            last[wire.training] = max(last[wire.training], number)
    for storage, number in last.items():
        if storage.made >= 0:
            forward.add(storage.size, storage.made + 1, len(steps) - 1 if storage in kept else number)
    for storage, number in kept.items():
        if storage.made >= 0:
            backward.add(storage.size, max(storage.made + 1, number), len(steps) - 1)
    for value in work.outputs.values():
        for wire in value.wires:
            if wire.given.graded and not (work.loss and wire in work.loss.inputs):
                waiting[id(wire)] = wire.bytes, wire.made, len(steps)
    for size, made, number in waiting.values():
        backward.add(size, made + 1, number - 1)
    _shared_weights(work, backward)
    peaks = [
        max(before + step.unit.cost.flow.peak_forward, behind + step.unit.cost.flow.peak_backward)
        for step, before, behind in zip(steps, forward.sizes(), backward.sizes(), strict=True)
    ]
    return max(peaks, default=0)


def _shared_weights(work: Steps, backward: _Span) -> None:
    """Adds gradients of weights that several steps share: autograd sums them up, out of place, before it is done."""
    users: dict[Place, list[int]] = {}
    for number, step in enumerate(work.steps):
        users.setdefault(step.weights, []).append(number)
        if step.node is not None and step.node.tied:
            users[step.node.tied,].append(number)
    for first, *others in users.values():
        if others:
            unit = work.steps[first].unit
            backward.add(unit.size, first, others[-1])
            for number in (first, *others[:-1]):
                backward.add(unit.widest * (1 if number == first else 2), number, number)
