"""A spec's graph as a flat list of steps: the nodes that do work, in their order, and the tensors between them.

Sequences and plain rounds are written out, so that a step is a leaf or a small combinator and is measured once however
often it occurs. Rounds that do more than repeat (a history, a router, taps of all rounds) are one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from archspec.graph import Graph, Node, Ref
from archspec.kinds.combinator import Sequence
from archspec.kinds.interface import Interface
from archspec.kinds.rounds import Loop, Rounds
from archspec.spec import Spec
from archspec.streams import Stream
from search.cost.block import Given
from search.cost.unit import Unit, loss_unit, measured
from search.cost.wires import Value, Values, Wire, caller_s, inputs, results
from search.losses import LOSSES

Place = tuple[str, ...]


@dataclass(eq=False, slots=True)
class Step:
    """A node at work.

    Attributes:
        node: None for the loss.
        row: the path of the top-level node or round that it belongs to.
        weights: where its weights stand in the model; steps of one place share them.
        training: whether it exists only there.
        once: whether it is done with before the first token is decoded.
        streams, ports: what it reads and what of it is read.
        results: a wire for each of its block's results.
    """

    node: Node | None
    row: Place
    weights: Place
    training: bool
    streams: dict[tuple[str, str], Stream]
    ports: tuple[str, ...]
    inputs: tuple[Wire, ...]
    unit: Unit
    results: tuple[Wire, ...] = ()
    once: bool = False


@dataclass(eq=False)
class Steps:
    """A spec at work on a batch.

    Attributes:
        inputs: the model's own inputs.
        outputs: the model's outputs, in training form.
        held: what rounds are handed and hand back, and the number of their last step: until then it is held.
        loss: what a training step minimises, if it is known for the interface; it works in training only.
    """

    inputs: list[Wire]
    steps: list[Step] = field(default_factory=list)
    loss: Step | None = None
    outputs: dict[str, Value] = field(default_factory=dict)
    held: list[tuple[Wire, int]] = field(default_factory=list)


def steps(
    spec: Spec, *, batch: int, lengths: Mapping[str, int], dtype: torch.dtype, context: int | None = None,
    processor: str = "gpu",
) -> Steps:  # fmt: skip
    """The steps of a spec, with its training loss.

    Args:
        lengths: a number for each length that is known only when the model runs.
        context: instead, the steps of one more token of a causal input that had so many.
        processor: cpu, gpu or tpu.
    """
    values = inputs(spec.graph.inputs, batch=batch, lengths=lengths, dtype=dtype, decoding=context is not None)
    work = run(spec.graph, values, dtype, context, processor)
    if context is None:
        work.loss = loss(work.outputs, spec.interface, len(work.steps))
    return work


def run(graph: Graph, values: Values, dtype: torch.dtype, context: int | None = None, processor: str = "gpu") -> Steps:
    """The steps of a graph whose inputs stand in ``values``; its outputs get gradients."""
    given = {id(wire): wire for value in values.values() for wire in value.wires}
    result = Steps(list(given.values()))
    walker = _Walker(result, dtype, context, processor)
    result.outputs = walker.graph(graph, dict(values), (), Places(()), training=False)
    if context is None:
        walker.backward()
    return result


def loss(outputs: Mapping[str, Value], interface: Interface, number: int) -> Step | None:
    """Cross-entropy of the logits, or exits, as the step of that number; None for interfaces that have none."""
    (logits, *_) = outputs.get("exits", next(iter(outputs.values()))).wires
    if interface.name_ not in LOSSES or not logits.given.graded:
        return None
    unit = loss_unit(interface.name_, logits.given)
    wires = logits, caller_s(logits.given.shape[:-1], torch.int64)  # and the targets
    return Step(None, ("loss",), ("loss",), True, {}, (), wires, unit, results(unit, wires, number))


class _Walker:
    def __init__(self, result: Steps, dtype: torch.dtype, context: int | None, processor: str) -> None:
        self.result, self.context, self.setting = result, context, (dtype, processor)
        self.known: dict[tuple[int, tuple[str, ...], tuple[Given, ...]], Unit] = {}

    def graph(self, graph: Graph, values: Values, row: Place, weights: Places, *, training: bool) -> dict[str, Value]:
        """Runs a graph whose inputs stand in ``values``; gives its outputs."""
        wanted = {(ref.node, ref.port) for ref in graph.outputs.values()}
        for node in graph.nodes:
            wanted |= {(ref.node, ref.port) for ref in (*node.inputs, *node.outer.values())}
        first = next(iter(graph.inputs), None)
        for node in graph.nodes:
            mine, only = row or (node.name,), training or node.when == "training"
            place = weights.of(node.shares or node.name)
            if _plain(node):
                found = self.inside(node, values, mine, place, only, top=not row)
            else:
                ports = tuple(port for port in node.outputs if (node.name, port) in wanted)
                found = self.leaf(node, values, ports, first, mine, place, only)
            values |= {(node.name, port): value for port, value in found.items()}
        return {name: values[ref.node, ref.port] for name, ref in graph.outputs.items()}

    def inside(
        self, node: Node, values: Values, row: Place, place: Place, training: bool, *, top: bool
    ) -> dict[str, Value]:
        """A sequence or rounds, written out."""
        streams = [values[ref.node, ref.port] for ref in node.inputs]
        outer = {name: values[ref.node, ref.port] for name, ref in node.outer.items()}
        if isinstance(node.kind, Sequence):
            return _ports(self.body(node.bodies["body"], streams, outer, row, Places(place), training))
        assert isinstance(node.kind, Rounds)
        names = [str(ref).rsplit(".", 1)[-1] for ref in node.inputs]
        outputs = dict(zip(names, streams, strict=True))
        taps: dict[str, Value] = {}
        for number, body in enumerate(node.kind.bodies(node)):
            mine = (*row, str(number)) if top else row
            weights = Places((*place, str(number)), (*place, "0"), _shared(node.kind))
            outputs = self.body(body, streams, outer, mine, weights, training)
            last = len(self.result.steps) - 1
            held = (*streams, *outer.values(), *outputs.values())
            self.result.held += [(wire, last) for value in held for wire in value.wires]
            main = next(iter(outputs.values()))
            if len(outputs) == 1:
                streams[0] = main
            else:
                streams = [outputs.get(name, old) for name, old in zip(body.inputs, streams, strict=False)]
            taps[str(number)] = main
        return {**taps, **_ports(outputs)}

    def body(
        self, graph: Graph, streams: list[Value], outer: dict[str, Value], row: Place, weights: Places, training: bool
    ) -> dict[str, Value]:
        values: Values = {(name, ""): value for name, value in zip(graph.inputs, streams, strict=False)}
        values |= {(name, ""): outer[name] for name in graph.outer}
        return self.graph(graph, values, row, weights, training=training)

    def leaf(
        self, node: Node, values: Values, ports: tuple[str, ...], first: str | None, row: Place, place: Place,
        training: bool,
    ) -> dict[str, Value]:  # fmt: skip
        """A node that is measured."""
        refs = [*node.inputs, *node.outer.values()]
        if not refs and first is not None:
            refs = [Ref(first)]  # learned tokens: as many samples as there are
        read = {(ref.node, ref.port): values[ref.node, ref.port] for ref in refs}
        streams = {at: value.stream for at, value in read.items()}
        wires = tuple(wire for value in read.values() for wire in value.wires)
        given = tuple(wire.given for wire in wires)
        key = (id(node), ports, given)
        unit = self.known.get(key)
        if unit is None:
            context = self.context if any(stream.causal for stream in streams.values()) else None
            unit = self.known[key] = measured(node, streams, ports or ("",), given, *self.setting, context=context)
        once = self.context is not None and not any(stream.causal for stream in streams.values())
        step = Step(node, row, place, training, streams, ports, wires, unit, once=once)
        step.results = results(unit, wires, len(self.result.steps))
        self.result.steps.append(step)
        return {
            port: Value(stream, tuple(wires[at] if at >= 0 else step.results[~at] for at in places))
            for port, (stream, places) in unit.outputs.items()
        }

    def backward(self) -> None:
        """Follows gradients from the outputs back; steps that get none for some result are measured again so."""
        reached = {id(wire) for value in self.result.outputs.values() for wire in value.wires}
        for step in reversed(self.result.steps):
            assert step.node is not None
            handed = {~place for _, places in step.unit.outputs.values() for place in places if place < 0}
            graded = [number for number, wire in enumerate(step.results) if wire.given.graded]
            seeds = tuple(n for n in graded if n not in handed or id(step.results[n]) in reached)
            if len(seeds) < len(graded):
                given = tuple(wire.given for wire in step.inputs)
                ports = step.ports or ("",)
                step.unit = measured(step.node, step.streams, ports, given, *self.setting, seeds)
            reached |= {id(step.inputs[place]) for place in step.unit.cost.flow.reached}


class Places(NamedTuple):
    """Where the weights of a graph's nodes stand; some or all may stand in the first round."""

    place: Place
    first: Place = ()
    shared: frozenset[str] | None = frozenset()  # None: all

    def of(self, name: str) -> Place:
        return (*(self.first if self.shared is None or name in self.shared else self.place), name)


def _shared(rounds: Rounds) -> frozenset[str] | None:
    """Nodes of the body whose weights all rounds share; None for all of them."""
    if rounds.share is None:
        return None if isinstance(rounds, Loop) else frozenset()
    return frozenset(rounds.share)


def _plain(node: Node) -> bool:
    """Whether a node is no more than its bodies one after the other."""
    if any(ref.span for ref in (*node.inputs, *node.outer.values())):
        return False
    if any(ref.span for body in node.bodies.values() for ref in body.outputs.values()):
        return False
    if isinstance(node.kind, Rounds):
        return "each" not in node.reads and all(slot.startswith("rounds.") for slot in node.bodies)
    return isinstance(node.kind, Sequence)


def _ports(outputs: dict[str, Value]) -> dict[str, Value]:
    main = next(iter(outputs.values()))
    return {"": main} | (outputs if len(outputs) > 1 else {})
