"""All that is told of what one spec costs on one device, when asked: `search.cost.price` tells what a search looks at.

FLOPs, memory and cache are exact; latencies are predicted, with an interval and with where they come from; energy is an
estimate from a device's idle and full power.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from archspec.errors import Problem, SpecError
from archspec.spec import Spec
from compiler.decoding import refusals
from search.cost.cache import kept_numbers, kept_of
from search.cost.checkpointing import checkpointed
from search.cost.devices import Device
from search.cost.fits import Fit, largest
from search.cost.lengths import count
from search.cost.memory import inference_peak, training
from search.cost.parts import Pass, take_apart
from search.cost.passes import owned
from search.cost.price import Cost, buffers, counted, decoding, known_context, price, resolve_lengths
from search.cost.setting import PHASES, Phase, Setting, setting
from search.cost.steps import Steps, steps
from search.cost.update import ARITHMETIC, STATES, update_peak
from search.losses import LOSSES

FARTHEST = 2**24  # tokens, where an interface sets no limit


@dataclass(frozen=True)
class Memory:
    """Bytes.

    Attributes:
        gradients, optimizer: of all weights, and the optimizer's states.
        saved: what autograd keeps from the forward to the backward pass.
        loss: what the training loss adds at its own peak.
        transient: what the training peak has beyond weights, states, inputs, and gradients or what is saved,
            whichever is more.
        saved_checkpointed, peak_checkpointed: with every row run again in the backward pass.
        cache_per_token, cache_per_sequence: what decoding keeps of one sequence, while no window is full.
        cache: of the whole batch after the decoded token; None if there is no decoding, as `decode`: at most, with it.
    """

    weights: int
    gradients: int
    optimizer: int
    saved: int
    loss: int
    transient: int
    inference: int
    training: int
    saved_checkpointed: int
    peak_checkpointed: int
    cache_per_token: int
    cache_per_sequence: int
    cache: int | None
    decode: int | None


@dataclass(frozen=True)
class Fits:
    """What fits into so many bytes of memory: samples in training, sequences in serving, tokens of context.

    Serving is decoding at the context where the spec decodes, a forward pass otherwise.
    """

    memory: int
    training: Fit
    serving: Fit
    context: Fit | None


@dataclass(frozen=True)
class Breakdown:
    """What a spec costs, taken apart.

    Attributes:
        cost: its price, of the first phase that there is.
        passes: by phase; ``absent`` tells why there is none of another.
        optimizer: FLOPs of an optimizer's step, pointwise ones, which FLOPs elsewhere leave out.
        again: FLOPs that activation checkpointing adds to a training step.
        unit, units: what throughput counts, ``token`` or ``sample``, and how many a pass over the batch has.
    """

    cost: Cost
    profile: Device
    passes: Mapping[Phase, Pass]
    absent: Mapping[Phase, str]
    optimizer: int
    again: int
    memory: Memory
    context: int | None
    unit: str
    units: int
    fits: Fits | None = field(default=None, repr=False)

    def throughput(self, phase: Phase) -> float | None:
        """Tokens or samples per second in a phase."""
        found = self.passes.get(phase)
        if found is None:
            return None
        return (self.cost.batch if phase == "decode" else self.units) / found.seconds

    def as_dict(self) -> dict[str, Any]:
        """As ``archc cost --json`` prints it."""
        from search.cost.report.plain import as_dict

        return as_dict(self)


def breakdown(
    spec: Spec,
    *,
    batch: int = 1,
    length: int | None = None,
    dtype: str = "float32",
    device: str = "local",
    context: int | None = None,
    phases: Sequence[Phase] = PHASES,
    fitting: bool = True,
) -> Breakdown:
    """Takes apart what a spec costs.

    Args:
        batch, length, dtype, device, context: as of `search.cost.price.price`.
        phases: of which latencies are told, where the spec has them.
        fitting: whether to look for the largest batch and context that fit, which prices a spec a dozen times more.

    Errors:
        SpecError: as of `price`; a context that is given but impossible.
    """
    spec = spec.final
    lengths = resolve_lengths(spec, length)
    absent = _absent(spec)
    if "decode" not in absent or context is not None:
        context = known_context(spec, lengths, context)
    there = [phase for phase in phases if phase not in absent]
    under = {phase: setting(dtype=dtype, device=device, phase=phase, context=context) for phase in {"prefill", *there}}
    plain = under["prefill"]
    kind = plain.device.kind
    work = steps(spec, batch=batch, lengths=lengths, dtype=plain.dtype, processor=kind)
    decoded = decoding(spec, batch, lengths, plain._replace(context=context)) if "decode" not in absent else None
    cost = price(
        spec, batch=batch, length=length, dtype=dtype, device=device, phase=there[0] if there else "prefill",
        context=context,
    )  # fmt: skip
    first = next((x for x in spec.graph.inputs.values() if x.causal), next(iter(spec.graph.inputs.values())))
    worded = first.content == "ids" or bool(lengths)
    again, memory = _memory(spec, cost, work, decoded, plain, context)
    return Breakdown(
        cost=cost,
        profile=plain.device,
        passes={
            phase: take_apart(spec, decoded if phase == "decode" and decoded else work, under[phase]) for phase in there
        },
        absent={phase: cause for phase, cause in absent.items() if phase in phases},
        optimizer=ARITHMETIC * cost.parameters,
        again=again,
        memory=memory,
        context=context if decoded else None,
        unit="token" if worded else "sample",
        units=batch * count(first, lengths) if worded else batch,
        fits=_fits(spec, cost, plain, length, lengths, context if decoded else None) if fitting else None,
    )


def require(spec: Spec, phase: Phase) -> None:
    """Refuses a phase that a spec does not have.

    Errors:
        SpecError: it cannot be decoded, or nobody knows its training loss.
    """
    if phase == "decode":
        problems = list(refusals(spec))
        if problems:
            raise SpecError(*problems)
    if phase == "step" and spec.interface.name_ not in LOSSES:
        cause = f"there is no training step: no loss is known for {spec.interface.name_}"
        raise SpecError(Problem(cause, f"interfaces with one are {', '.join(LOSSES)}", "interface"))


def _absent(spec: Spec) -> dict[Phase, str]:
    found: dict[Phase, str] = {}
    for phase in PHASES:
        try:
            require(spec, phase)
        except SpecError as error:
            found[phase] = error.problems[0].cause
    return found


def _memory(
    spec: Spec, cost: Cost, work: Steps, decoded: Steps | None, under: Setting, context: int | None
) -> tuple[int, Memory]:
    size = under.dtype.itemsize
    states = cost.parameters * STATES
    step = training(work)
    update = update_peak(cost.parameters, max((one.unit.widest for one in work.steps), default=0), size)
    beside = cost.peak_training - max(step.peak, update)
    saved = step.inside + sum(storage.size for storage in step.kept)
    less = checkpointed(work)
    kept = kept_of(spec.graph)
    cache = None if decoded is None or context is None else size * cost.batch * kept_numbers(kept, context + 1)
    return less.flops, Memory(
        weights=cost.weights,
        gradients=cost.parameters * size,
        optimizer=states,
        saved=saved,
        loss=cost.loss,
        transient=max(0, cost.peak_training - beside - max(saved, cost.parameters * size)),
        inference=cost.peak_inference,
        training=cost.peak_training,
        saved_checkpointed=less.kept,
        peak_checkpointed=beside + max(less.peak, update),
        cache_per_token=cost.cache_per_token,
        cache_per_sequence=size * sum(one.numbers for one in kept if one.per == "sequence"),
        cache=cache,
        decode=None if decoded is None or cache is None else cache + _served(decoded, under),
    )


def _served(work: Steps, under: Setting) -> int:
    """Bytes of a decoding model beside its cache."""
    parameters = sum(one.total for one in counted(work.steps))
    weights = parameters * under.dtype.itemsize + sum(step.unit.stored for step in owned(work.steps))
    held = sum(buffers(work).values()) + sum(wire.bytes for wire in work.inputs)
    return weights + held + inference_peak(work)


def _fits(
    spec: Spec, cost: Cost, under: Setting, length: int | None, lengths: Mapping[str, int], context: int | None
) -> Fits:
    memory = int(under.device.memory[-1].size)
    kept = kept_of(spec.graph)

    def priced(batch: int) -> Cost:
        return price(spec, batch=batch, length=length, dtype=cost.dtype, device=cost.device)

    def served(batch: int, context: int) -> int:
        work = decoding(spec, batch, lengths, under._replace(context=context))
        return _served(work, under) + under.dtype.itemsize * batch * kept_numbers(kept, context + 1)

    train = largest(lambda batch: priced(batch).peak_training, memory)
    if context is None:
        return Fits(memory, train, largest(lambda batch: priced(batch).peak_inference, memory), None)
    axis = next(axis for x in spec.graph.inputs.values() if x.causal for axis in x.axes)
    limit = axis.size if isinstance(axis.size, int) else axis.limit
    return Fits(
        memory,
        train,
        largest(lambda batch: served(batch, context), memory),
        largest(lambda tokens: served(cost.batch, tokens), memory, least=0, limit=limit - 1 if limit else FARTHEST),
    )
