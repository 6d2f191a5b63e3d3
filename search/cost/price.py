"""The price of a whole spec: parameters, FLOPs, memory and latency, exact and without building the model.

Each distinct node is built, traced and run once on the meta device (`search.cost.unit`); a spec's figures are sums over
its steps, and its peaks follow from what is live between them (`search.cost.memory`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archspec.errors import Problem, SpecError
from archspec.kinds.rounds import Rounds
from archspec.spec import Spec
from archspec.streams import Stream
from compiler.decoding import refusals
from search.cost import devices
from search.cost.cache import kept_per_token
from search.cost.kernels import Sum
from search.cost.memory import inference_peak, training
from search.cost.passes import PassTime, owned, pass_time, seconds, taking_part
from search.cost.setting import Phase, Setting, setting
from search.cost.steps import Step, Steps, steps
from search.cost.unit import Unit, Weights
from search.cost.update import STATES, update_peak

SCHEMA = 2


@dataclass(frozen=True)
class Row:
    """A top-level node, or a round of one.

    Attributes:
        output: the type of its output.
        parameters: those that no earlier row has.
        flops: of a forward pass; ``share`` of the model's.
        latency_ms: its part of the model's.
    """

    name: str
    kind: str
    output: str
    parameters: int
    flops: int
    share: float
    latency_ms: float


@dataclass(frozen=True)
class Cost:
    """What a spec costs; `as_dict` nests it as ``archc cost --json`` prints it.

    Attributes:
        parameters, active: all of them, and those that one token meets.
        forward, training_step: FLOPs of a batch, one multiply-add is 2.
        weights: bytes.
        peak_inference, peak_training: bytes, weights included; training with gradients and optimizer states.
        loss: bytes that the training loss adds at its own peak: its kept tensors and the gradient of the logits.
        cache_per_token: bytes that decoding keeps for each token.
        latency_ms: of a forward pass over the whole batch (prefill).
    """

    parameters: int
    active: int
    forward: int
    training_step: int
    weights: int
    peak_inference: int
    peak_training: int
    loss: int
    cache_per_token: int
    latency_ms: float
    batch: int
    lengths: Mapping[str, int]
    dtype: str
    device: str
    phase: Phase = "prefill"
    context: int | None = None
    unpriced: tuple[str, ...] = ()
    rows: tuple[Row, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers: counts, bytes, milliseconds."""
        lengths = dict(self.lengths)
        return {
            "schema": SCHEMA,
            "parameters": {"total": self.parameters, "active": self.active},
            "flops": {"forward": self.forward, "training_step": self.training_step},
            "macs": {"forward": self.forward // 2},
            "memory": {
                "weights": self.weights,
                "peak_inference": self.peak_inference,
                "peak_training": self.peak_training,
                "cache_per_token": self.cache_per_token,
            },
            "latency_ms": {self.phase: self.latency_ms},
            "assumptions": {
                "batch": self.batch,
                "length": next(iter(lengths.values())) if len(lengths) == 1 else lengths or None,
                "dtype": self.dtype,
                "device": self.device,
                "flops": "one multiply-add is 2; attention is a full square; pointwise work and reductions are none",
                "latency": "of the whole batch, operator by operator",
                "memory": "weights and inputs included; no allocator's rounding, no kernel's workspace",
                "training": "gradients of the weights' dtype, made anew in each step; AdamW with float32 states, "
                "weight by weight; no checkpointing",
                "loss": f"cross-entropy in float32, {self.loss} bytes at its own peak" if self.loss else None,
                "unpriced": list(self.unpriced),
            },
        }


def price(
    spec: Spec,
    *,
    batch: int = 1,
    length: int | None = None,
    dtype: str = "float32",
    device: str = devices.LOCAL,
    phase: Phase = "prefill",
    context: int | None = None,
) -> Cost:
    """Prices a spec; numbers that move in training at what they end at (`Spec.at` gives others).

    Args:
        batch: samples.
        length: tokens where the interface leaves it open; the longest that it allows by default.
        dtype: of weights, activations and gradients.
        device: the name of a profile, or the path of one.
        phase: whose latency is told.
        context: tokens before the one that is decoded; all that the length leaves by default.

    Errors:
        SpecError: an unknown dtype, device or phase; a length that is needed, or longer than the interface allows; a
            spec that cannot be decoded.
    """
    spec = spec.final  # numbers that move in training cost what they end at
    lengths = resolve_lengths(spec, length)
    if phase == "decode":
        context = known_context(spec, lengths, context)
    under = setting(dtype=dtype, device=device, phase=phase, context=context)
    work = steps(spec, batch=batch, lengths=lengths, dtype=under.dtype, processor=under.device.kind)
    pass_ = work if under.context is None else decoding(spec, batch, lengths, under)
    counts = counted(work.steps)
    parameters = sum(count.total for count in counts)
    size = under.dtype.itemsize
    weights = parameters * size + sum(step.unit.stored for step in owned(work.steps))
    held = weights + sum(buffers(work).values()) + sum(wire.bytes for wire in work.inputs)
    targets = sum(wire.bytes for wire in work.loss.inputs[1:]) if work.loss else 0
    update = update_peak(parameters, max((step.unit.widest for step in work.steps), default=0), size)
    return Cost(
        parameters=parameters,
        active=sum(count.active for count in counts),
        forward=sum(step.unit.forward for step in work.steps if not step.training),
        training_step=sum(step.unit.step for step in work.steps),
        weights=weights,
        peak_inference=held + inference_peak(work),
        peak_training=held + targets + parameters * STATES + max(training(work).peak, update),
        loss=work.loss.unit.cost.peak_training if work.loss else 0,
        cache_per_token=kept_per_token(spec.graph) * size,
        latency_ms=1e3 * seconds(pass_time(pass_, under), under),
        batch=batch,
        lengths=lengths,
        dtype=dtype,
        device=device,
        phase=phase,
        context=under.context,
        unpriced=tuple(sorted({name for unit in distinct(work) for name in unit.cost.unpriced})),
        rows=tuple(_rows(spec, work, counts, pass_, under)),
    )


def decoding(spec: Spec, batch: int, lengths: Mapping[str, int], under: Setting) -> Steps:
    """The steps of one more token."""
    kind = under.device.kind
    return steps(spec, batch=batch, lengths=lengths, dtype=under.dtype, context=under.context, processor=kind)


def known_context(spec: Spec, lengths: Mapping[str, int], context: int | None) -> int:
    """Tokens before the one that is decoded: those given, or all that the length leaves.

    Errors:
        SpecError: the spec cannot be decoded, or no token is left.
    """
    problems = list(refusals(spec))
    if problems:
        raise SpecError(*problems)
    axis = next(axis for x in spec.graph.inputs.values() if x.causal for axis in x.axes)
    longest = axis.size if isinstance(axis.size, int) else axis.limit
    if context is None:
        return (axis.size if isinstance(axis.size, int) else lengths[axis.size]) - 1
    if not context >= 0 or (longest is not None and context >= longest):
        cause = f"one more token after {context}; the interface allows {longest} in all"
        raise SpecError(Problem(cause, f"a context of 0 to {(longest or 1) - 1}", "interface"))
    return context


def resolve_lengths(spec: Spec, length: int | None) -> dict[str, int]:
    """A number for each length that the interface leaves open: the one given, or the longest that it allows.

    The given one is that of the axis called ``length`` where there is one, else of all.

    Errors:
        SpecError: one is needed, or it is longer than the interface allows.
    """
    return lengths_of(spec.graph.inputs, length)


def lengths_of(streams: Mapping[str, Stream], length: int | None) -> dict[str, int]:
    """As `resolve_lengths`, from the types of the inputs."""
    found: dict[str, int] = {}
    axes = {axis.size: axis for x in streams.values() for span in x.spans for axis in span.axes}
    named = "length" in axes
    for name, axis in axes.items():
        if isinstance(name, int):
            continue
        mine = length if name == "length" or not named else None
        number = mine if mine is not None else axis.limit
        if number is None:
            raise SpecError(Problem(f"how long is {name}? the interface does not say", "give a length", "interface"))
        if axis.limit is not None and not 1 <= number <= axis.limit:
            raise SpecError(Problem(f"{number} tokens; the interface allows 1 to {axis.limit}", None, "interface"))
        found[name] = number
    return found


def counted(work: Sequence[Step]) -> list[Weights]:
    """For each step, the parameters that no earlier step has."""
    mine = set(map(id, owned(work)))
    return [step.unit.weights if id(step) in mine else step.unit.apart for step in work]


def buffers(work: Steps) -> dict[str, int]:
    """Bytes of tables that are computed and not stored, by block: equal blocks share them."""
    return {step.unit.content: step.unit.computed for step in work.steps if step.unit.computed}


def distinct(work: Steps) -> list[Unit]:
    """Each unit once."""
    return list({id(step.unit): step.unit for step in work.steps}.values())


def _rows(spec: Spec, work: Steps, counts: list[Weights], pass_: Steps, under: Setting) -> Iterable[Row]:
    groups: dict[tuple[str, ...], list[Step]] = {}
    for step in work.steps:
        groups.setdefault(step.row, []).append(step)
    times: dict[tuple[str, ...], float] = {}
    whole = pass_time(pass_, under)
    at, share = under.device.between(whole.resident)

    def busy(time: PassTime | Sum) -> float:
        return time.busy[at] + (share * (time.busy[at + 1] - time.busy[at]) if share else 0)

    cpu = under.device.kind == "cpu"
    asked = whole.host > busy(whole)  # longer than the device works, which it does meanwhile
    for step in taking_part(pass_, under):
        time = step.unit.time(under)
        part = busy(time) + time.host if cpu else time.host if asked else busy(time)
        times[step.row] = times.get(step.row, 0.0) + part / 1e15
    parameters = {id(step): count.total for step, count in zip(work.steps, counts, strict=True)}
    forward = sum(step.unit.forward for step in work.steps if not step.training)
    for row, members in groups.items():
        node = spec.graph.node(row[0])
        output: Stream = node.output
        if len(row) > 1 and isinstance(node.kind, Rounds):
            output = node.kind.bodies(node)[int(row[1])].output
        count = sum(step.unit.forward for step in members if not step.training)
        yield Row(
            name=".".join(row),
            kind=node.kind.name_,
            output=str(output),
            parameters=sum(parameters[id(step)] for step in members),
            flops=count,
            share=count / forward if forward else 0.0,
            latency_ms=1e3 * times.get(row, 0.0),
        )
