"""One node of a chain, elaborated and priced by itself, whatever stands before and after it.

In a chain every top-level node reads the one before it and nothing else. What a piece costs then follows from its own
text, from the dims, blocks and defaults that the text names, from the interface, and from the `State` that it is given:
the type of the stream, its tensors, and the storages in which they lie. Its price is a row of whole numbers; a model's
price is their sum, with peaks as maxima over what the pieces before have left live (`search.cost.chain`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from archspec.elaborate import Elaborator
from archspec.graph import Graph, Node
from archspec.kinds.embedding import TokenEmbedding
from archspec.kinds.interface import Interface
from archspec.place import Broken
from archspec.scope import Frame, Scope
from archspec.source import Map, Seq
from archspec.streams import Stream
from search.cost.cache import kept_per_token
from search.cost.memory import inference_peak, training
from search.cost.passes import PassTime, owned, pass_time
from search.cost.price import buffers, counted, distinct
from search.cost.setting import Setting
from search.cost.state import State, Storages, Table, held_by, kept_by, state_of, value_of
from search.cost.steps import Step, Steps, loss, run
from search.cost.wires import Values, Wire, inputs

INPUT = "\0"  # what the stream is called inside; no text can name it


@dataclass(frozen=True, slots=True)
class Piece:
    """What a piece costs, beside what the pieces before it have left.

    Attributes:
        after: what the next piece is given.
        resident: bytes of weights that the phase reads.
        busy: femtoseconds of the phase, by the working set of the whole pass (`Device.working_sets`).
        host: femtoseconds to be asked for.
        kept: bytes that autograd keeps of it, those of ``after`` excluded.
        forward_peak, backward_peak: of a training step, beside what was kept before and gradients of later weights.
        tied_peak: the backward peak before a head that uses the table of an embedding before; -1 without one.
        table, widest: bytes of an embedding's table, 0 elsewhere, and of the largest weight.
        inputs, targets: bytes that the caller holds; targets in training only.
        buffers: blocks with tables that are computed, and their bytes; a model has those of equal blocks once.
    """

    after: State
    parameters: int = 0
    active: int = 0
    stored: int = 0
    resident: int = 0
    forward: int = 0
    step: int = 0
    busy: tuple[int, ...] = ()
    host: int = 0
    cache: int = 0
    kept: int = 0
    inference_peak: int = 0
    forward_peak: int = 0
    backward_peak: int = 0
    tied_peak: int = -1
    table: int = 0
    widest: int = 0
    buffers: frozenset[tuple[str, int]] = frozenset()
    unpriced: frozenset[str] = frozenset()
    inputs: int = 0
    loss: int = 0
    targets: int = 0


class NoChainError(Exception):
    """The piece reads more than the one before it, or changes what another one costs."""


def piece(raw: Any, blocks: Map, scope: Scope, interface: Interface, state: State, setting: Setting) -> Piece:
    """The price of a node.

    Args:
        raw: the node as it stands in the file.
        scope: the file's numbers and defaults.

    Errors:
        NoChainError: it cannot be priced by itself.
        SpecError: the language refuses it.
    """
    graph = _elaborated(raw, blocks, scope, interface, state)
    value, storages = value_of(state)
    work = run(graph, {(INPUT, ""): value}, setting.dtype, processor=setting.device.kind)
    return _priced(work, graph, state, storages, _time(work, graph, state, setting), setting)


def _time(work: Steps, graph: Graph, state: State, setting: Setting) -> PassTime:
    if setting.context is None:
        return pass_time(work, setting)
    batch = state.tensors[0].given.shape[0]
    one = inputs({INPUT: state.stream}, batch=batch, lengths={}, dtype=setting.dtype, decoding=True)
    return pass_time(run(graph, one, setting.dtype, setting.context, setting.device.kind), setting)


def last_piece(interface: Interface, state: State, setting: Setting) -> Piece:
    """The training loss, or nothing for an interface without one."""
    value, storages = value_of(state)
    work = Steps(list(value.wires))
    work.loss = loss({"out": value}, interface, 0)
    if work.loss is None:
        work.outputs = {"out": value}
    peaks = training(work, kept_by(state, storages))
    time = pass_time(work, setting) if setting.phase == "step" else PassTime((), 0, 0)
    return Piece(
        state,
        busy=time.busy,
        host=time.host,
        resident=time.resident,
        forward_peak=max(peaks.forward, default=0),
        backward_peak=max(peaks.backward, default=0),
        loss=work.loss.unit.cost.peak_training if work.loss else 0,
        targets=sum(wire.bytes for wire in work.loss.inputs[1:]) if work.loss else 0,
    )


def _elaborated(raw: Any, blocks: Map, scope: Scope, interface: Interface, state: State) -> Graph:
    elaborator = Elaborator(blocks)
    elaborator.interface = interface
    elaborator.embeddings = [_embedding(table) for table in state.tables]
    inner = scope.child(depth=elaborator.depth)
    inner.defaults = scope.defaults
    items = Seq([raw])
    try:
        graph = elaborator.sequence(items, Frame(None, {INPUT: state.stream}), inner, 1, None)
    except Broken:
        graph = None
    elaborator.raise_all()
    if graph is None or elaborator.depth_read:
        raise NoChainError
    (node,) = graph.nodes
    if [ref.node for ref in node.inputs] not in ([INPUT], []) or node.outer or node.when != "always":
        raise NoChainError
    return graph


def _embedding(table: Table) -> Node:
    """As much of an embedding as a head that is tied to it looks at."""
    kind = TokenEmbedding.model_validate({"width": table.width, "vocab": table.rows})
    return Node(table.name, kind, (), (), {"": Stream(table.width, ())})


def _priced(
    work: Steps, graph: Graph, state: State, storages: Storages, time: PassTime,
    setting: Setting,
) -> Piece:  # fmt: skip
    (out, *more) = work.outputs.values()
    if more:
        raise NoChainError
    through = any(wire.given.graded and wire in work.inputs for wire in out.wires)
    reached = {id(step.inputs[place]) for step in work.steps for place in step.unit.cost.flow.reached}
    stopped = any(wire.given.graded and id(wire) not in reached for wire in work.inputs)
    if work.steps and (through or stopped):
        raise NoChainError
    held = held_by(state, storages)
    lives = [Wire(state.tensors[0].given, *pair, -1) for pairs in held for pair in pairs]
    work.held += [(wire, len(work.steps) - 1) for wire in lives]
    touched = {wire for step in work.steps for wire in step.inputs} if held else set()
    asleep = [  # bytes that none of the steps touches
        sum(one.size for one in {pair[form] for pairs in held for pair in pairs} - used - {None} if one)
        for form, used in enumerate(({wire.inference for wire in touched}, {wire.training for wire in touched}))
    ]
    peaks = training(work, kept_by(state, storages))
    onward = {wire.training for wire in out.wires}
    counts = counted(work.steps)
    serving = [step for step in work.steps if not step.training]
    heads = [number for number, step in enumerate(work.steps) if step.node and step.node.tied]
    tables = [_table(graph.nodes[0], work.steps[0])] if isinstance(graph.nodes[0].kind, TokenEmbedding) else []
    if len(heads) > 1 or (tables and state.tables):
        raise NoChainError  # whose gradients wait for whom is not told by one number any more
    return Piece(
        after=state_of(out, peaks.kept, (*state.tables, *tables), held),
        parameters=sum(count.total for count in counts),
        active=sum(count.active for count in counts),
        stored=sum(step.unit.stored for step in owned(work.steps)),
        resident=time.resident,
        forward=sum(step.unit.forward for step in serving),
        step=sum(step.unit.step for step in work.steps),
        busy=time.busy,
        host=time.host,
        cache=kept_per_token(graph),
        kept=peaks.inside + sum(storage.size for storage in peaks.kept if storage not in onward),
        inference_peak=inference_peak(work) + asleep[0],
        forward_peak=max(peaks.forward, default=0) + asleep[1],
        backward_peak=max(peaks.backward, default=0),
        tied_peak=max(peaks.backward[: heads[0]], default=0) if heads else -1,
        table=tables[0].size if tables else 0,
        widest=max((step.unit.widest for step in work.steps), default=0),
        buffers=frozenset(buffers(work).items()),
        unpriced=frozenset(name for unit in distinct(work) for name in unit.cost.unpriced),
    )


def _table(node: Node, step: Step) -> Table:
    width = node.output.width
    return Table(node.name, step.unit.weights.total // width, width, step.unit.size)


def first_piece(values: Values) -> Piece:
    """What the model is given: one stream."""
    if len(values) != 1:
        raise NoChainError
    (value,) = values.values()
    return Piece(state_of(value, frozenset(), ()), inputs=sum(wire.bytes for wire in value.wires))
