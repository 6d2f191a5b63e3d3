"""What one node costs: its module is built and traced on the meta device and run once, whoever asks again.

A node's cost depends on its own content and on the tensors that it is given: shapes, strides, dtypes, and which of them
get a gradient. Costs are remembered by these for as long as the process lives, and on disk (`search.cost.remembered`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

import compiler.modules  # noqa: F401  registers the built-in modules
from archspec.graph import Graph, Node, Ref
from archspec.streams import Stream
from compiler.build import Blocks, Body
from compiler.decoding import Past, by_head, keepers
from compiler.registry import MODULES
from compiler.split import split
from compiler.tokens import suffixes
from compiler.trace import Signature, trace
from search.cost import remembered
from search.cost.block import BlockCost, Given, Table, flops
from search.cost.devices import Device
from search.cost.kernels import Sum, summed
from search.cost.lengths import cost_of
from search.cost.meter import measure_block, measure_decoded, record_block
from search.cost.recording import Recording
from search.cost.setting import Setting
from search.cost.update import update_table
from search.losses import LOSSES

LARGEST = 20_000  # units remembered; a search sees some thousands
OUT = "out"


class Weights(NamedTuple):
    """How many numbers parameters are, and how many of them one token meets."""

    total: int
    active: int


NONE = Weights(0, 0)


@dataclass(frozen=True, eq=False)
class Unit:
    """What one node costs.

    Attributes:
        content: a hash of the node; equal blocks share tables that are computed and not stored.
        cost: of its run; ``cost.flow`` tells how its tensors hang together.
        outputs: for each output its type, and where each of its tensors comes from: ``~n`` the result of number n, else
            the number of a tensor that is given.
        weights: its parameters, without the tables of tied heads.
        apart: those of them that are its own where it uses the weights of another node.
        size, shared, widest: bytes of its parameters, of those that are not its own alone, and of the largest.
        tensors: numbers in each of its parameters, without the tables of tied heads.
        gradients: bytes of the gradients of its parameters, without the tables of tied heads.
        stored, computed: bytes of buffers that are saved with the weights, and of those that are not.
    """

    content: str
    cost: BlockCost
    outputs: dict[str, tuple[Stream, tuple[int, ...]]]
    weights: Weights
    apart: Weights
    size: int
    shared: int
    widest: int
    tensors: tuple[int, ...]
    gradients: int
    stored: int
    computed: int
    _times: dict[tuple[str, int, str], tuple[Sum, Device]] = field(default_factory=dict)

    @cached_property
    def forward(self) -> int:
        """FLOPs of inference."""
        return flops(self.cost.inference)

    @cached_property
    def step(self) -> int:
        """FLOPs of a training step."""
        return flops(self.cost.training)

    def time(self, setting: Setting) -> Sum:
        """What its operators take in a setting's phase, the optimizer's left out."""
        step = setting.phase == "step"
        return self._time("step" if step else "", setting, self.cost.training if step else self.cost.inference)

    def update_time(self, setting: Setting) -> Sum:
        """What the optimizer takes for its parameters."""
        return self._time("update", setting, self.update(setting))

    def update(self, setting: Setting) -> Table:
        """The optimizer's operators for its parameters."""
        return update_table(self.tensors, setting.dtype, together=setting.device.kind != "cpu")

    def _time(self, what: str, setting: Setting, table: Table) -> Sum:
        key = what, id(setting.device), setting.phase
        known = self._times.get(key)
        if known is None:  # the device is kept, so that its id stays its own
            known = self._times[key] = summed(table, setting.device, setting.phase), setting.device
        return known[0]


_units: dict[Hashable, Unit] = {}
_of_nodes: WeakKeyDictionary[Node, dict[Hashable, Unit]] = WeakKeyDictionary()  # those of nodes that were met before


def measured(
    node: Node, streams: dict[tuple[str, str], Stream], ports: Sequence[str], given: Sequence[Given],
    dtype: torch.dtype, processor: str, seeds: tuple[int, ...] | None = None, context: int | None = None,
) -> Unit:  # fmt: skip
    """The cost of a node.

    Args:
        streams: what it reads and what is read by its slots: the type of each stream by node and port.
        ports: outputs that somebody reads.
        given: the tensors of these streams.
        processor: cpu, gpu or tpu.
        seeds: numbers of the results that get a gradient; all that can by default.
        context: tokens that a causal stream had before the one that is given; None for whole streams.
    """
    place = (tuple(ports), tuple(given), dtype, processor, seeds, context)
    mine = _of_nodes.setdefault(node, {})
    found = mine.get(place)
    if found is not None:
        return found
    graph = alone(node, streams, ports)
    key = (graph.digest("layout"), tuple(streams.values()), tuple(given), dtype, processor, seeds, context)
    found = _units.get(key)
    if found is None:
        if len(_units) >= LARGEST:
            forget()
        found = _units[key] = _remembered(graph, tuple(given), dtype, processor, seeds, context)
    mine[place] = found
    return found


def _remembered(graph: Graph, *setting: Any) -> Unit:
    """What is known from another process, or else is measured; takes what `_measure` takes."""
    if remembered.off() or not all(map(_own, graph.nodes)):  # a plugin's sources are not known
        return _measure(graph, *setting)
    streams = [(repr(replace(stream, ahead=frozenset())), sorted(stream.ahead)) for stream in graph.inputs.values()]
    key = repr((graph.digest("layout"), streams, *setting))
    unit = _recalled(key, graph.types)
    if unit is None:
        unit = _measure(graph, *setting)
        if all(stream == graph.types[name or OUT] for name, (stream, _) in unit.outputs.items()):
            _keep(key, unit)
    return unit


def _own(node: Node) -> bool:
    module = MODULES.get(type(node.kind))  # some kinds only tell others what to do
    ours = type(node.kind).__module__.startswith("archspec.") and (module is None or _compiler_s(module))
    return ours and all(map(_own, node.children()))


def _compiler_s(module: type) -> bool:
    return module.__module__.startswith("compiler.")


def _keep(key: str, unit: Unit) -> None:
    outputs = {name: places for name, (_, places) in unit.outputs.items()}
    rest = [getattr(unit, name) for name in _RECALLED]
    remembered.keep(key, [unit.content, remembered.plain(unit.cost), outputs, rest])


def _recalled(key: str, types: Mapping[str, Stream]) -> Unit | None:
    value = remembered.recall(key)
    try:
        content, cost, outputs, (weights, apart, tensors, *sizes) = value
        return Unit(
            content=content,
            cost=remembered.block_cost(cost),
            outputs={name: (types[name or OUT], tuple(places)) for name, places in outputs.items()},
            weights=Weights(*weights),
            apart=Weights(*apart),
            tensors=tuple(tensors),
            **dict(zip(_RECALLED[3:], sizes, strict=True)),
        )
    except (TypeError, ValueError, AttributeError, KeyError):
        return None


_RECALLED = ("weights", "apart", "tensors", "size", "shared", "widest", "gradients", "stored", "computed")


def forget() -> None:
    """Drops what this process remembers."""
    _units.clear()
    _of_nodes.clear()


def loss_unit(interface: str, logits: Given) -> Unit:
    """The cost of an interface's training loss: cross-entropy over its logits, in float32."""
    key = ("loss", interface, logits)
    if key not in _units:
        unit = None if remembered.off() else _recalled(repr(key), {})
        if unit is None:
            inputs = [_tensor(logits), torch.empty(logits.shape[:-1], dtype=torch.int64, device="meta")]
            cost = measure_block(_Loss(interface), inputs, train=True)
            unit = Unit("loss", cost, {}, NONE, NONE, 0, 0, 0, (), 0, 0, 0)
            if not remembered.off():
                _keep(repr(key), unit)
        _units[key] = unit
    return _units[key]


class _Loss(nn.Module):
    def __init__(self, interface: str) -> None:
        super().__init__()
        self.loss = LOSSES[interface]

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.loss(logits, targets)


def alone(node: Node, streams: dict[tuple[str, str], Stream], ports: Sequence[str]) -> Graph:
    """A graph of one node; its inputs are the whole streams, which it cuts into spans itself."""
    names = {place: f"x{number}" for number, place in enumerate(streams)}

    def moved(ref: Ref) -> Ref:
        return Ref(names[ref.node, ref.port], "", ref.span)

    inner = replace(
        node,
        name="node",
        when="always",  # who measures a training-only node does so in training
        shares=None,
        inputs=tuple(moved(ref) for ref in node.inputs),
        outer={name: moved(ref) for name, ref in node.outer.items()},
        reads=set(ports),
    )
    outputs = {port or OUT: Ref("node", port) for port in ports}
    types = {port or OUT: node.outputs[port] for port in ports}
    inputs = {names[place]: stream for place, stream in streams.items()}
    return Graph(inputs, len(inputs), [inner], outputs, types)


def _measure(
    graph: Graph,
    given: Sequence[Given],
    dtype: torch.dtype,
    processor: str,
    seeds: tuple[int, ...] | None,
    context: int | None,
) -> Unit:
    blocks = Blocks()
    root = Body(graph, blocks)
    block: Any = trace(root, Signature(graph), "Block", graph.differs_in_training)
    if dtype != torch.float32:
        block.to(dtype)

    def record(given: Sequence[Given], train: bool, limit: int | None) -> Recording:
        tensors = [_tensor(one) for one in given]
        return record_block(block, tensors, train=train, seeds=seeds, processor=processor, limit=limit)

    if context is None:
        cost = cost_of(record, list(graph.inputs.values()), given)
    else:
        cost = _decoded(block, graph, [_tensor(one) for one in given], context, processor)
    stored, computed = _buffers(block)
    outputs = {
        "" if name == OUT else name: (stream, tuple(places)) for name, stream, places in block.signature.outputs[True]
    }
    untraced = Body(graph, _Untraced()) if blocks.templates else root
    weights, apart = _weights(untraced, sum(_tied(graph))), _weights(untraced, 0, own=True) if graph.apart else NONE
    numbers = [parameter.numel() for parameter in block.parameters()]
    size, widest = sum(numbers) * dtype.itemsize, max(numbers, default=0) * dtype.itemsize
    for table in _tied(graph):
        numbers.remove(table)
    shared = size - apart.total * dtype.itemsize
    gradients = weights.total * dtype.itemsize
    return Unit(
        graph.digest("layout"),
        cost,
        outputs,
        weights,
        apart,
        size,
        shared,
        widest,
        tuple(numbers),
        gradients,
        stored,
        computed,
    )


def _tensor(given: Given) -> Tensor:
    tensor = torch.empty_strided(given.shape, given.stride, dtype=given.dtype, device="meta")
    return tensor.requires_grad_(given.graded)


def _decoded(block: Any, graph: Graph, given: Sequence[Tensor], context: int, processor: str) -> BlockCost:
    """The cost of one more token after so many; what does not move with the tokens is known."""
    causal = [stream.causal for stream in graph.inputs.values() for _ in suffixes(stream)]
    module, inputs, known = block.eval(), list(given), ()
    if not all(causal) and any(causal):
        moving = [name for name, moves in zip(block.signature.names, causal, strict=True) if moves]
        once, module = split(block, moving)
        with torch.no_grad():
            known = by_head(once(*(one for one, moves in zip(given, causal, strict=True) if not moves)))
        inputs = [*(one for one, moves in zip(given, causal, strict=True) if moves), *known]
    past = Past(keepers(module), length=context + 1)
    with torch.no_grad(), past.call():
        module(*inputs)
    past.position = context
    with past.call():
        return measure_decoded(module, inputs, [*known, *past.tensors()], processor)


class _Untraced(Blocks):
    """Leaves bodies as they are: a trace keeps parameters, but not what modules say about them."""

    def block(self, graph: Graph) -> nn.Module:
        return Body(graph, self)


def _weights(block: nn.Module, tied: int, *, own: bool = False) -> Weights:
    """Parameters of a block, or those that are its own; a module's ``active_share`` scales those below it."""
    found: dict[int, tuple[int, int]] = {}

    def below(module: nn.Module, share: float) -> None:
        share *= getattr(module, "active_share", 1.0)
        for parameter in module._parameters.values():
            if parameter is not None and (not own or getattr(module, "own", False)):
                count = parameter.numel()
                found[id(parameter)] = count, round(count * share)
        for inner in module._modules.values():
            if inner is not None:
                below(inner, share)

    below(block, 1.0)
    return Weights(sum(count for count, _ in found.values()) - tied, sum(active for _, active in found.values()) - tied)


def _tied(graph: Graph) -> Iterator[int]:
    """Sizes of the tables that heads use and do not own."""
    for node in graph.nodes:
        if node.tied:
            yield node.output.width * node.types[0].width
        for body in node.bodies.values():
            yield from _tied(body)


def _buffers(block: nn.Module) -> tuple[int, int]:
    stored = computed = 0
    seen: set[int] = set()
    for module in block.modules():
        for name, buffer in module._buffers.items():
            if buffer is None or id(buffer) in seen:
                continue
            seen.add(id(buffer))
            size = buffer.numel() * buffer.element_size()
            if name in module._non_persistent_buffers_set:
                computed += size
            else:
                stored += size
    return stored, computed
