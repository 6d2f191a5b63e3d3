"""Runs a module once on the meta device and writes down every operator that it executes.

`measure_block` gives a `BlockCost`: for inference (``eval()``, no gradients) and for training (``train()``, forward and
backward) the operators with their FLOPs and bytes, and the bytes that are live beside weights and inputs. It is plain
data: costs add up over blocks and multiply by the number of copies, and no tensor is kept.

What is counted. FLOPs are those of `search.cost.operators`. ``scaled_dot_product_attention`` of four-dimensional
tensors counts as one fused operator, as FlashAttention (Dao et al. 2022, arXiv 2205.14135) and the kernels of CPUs run
it: the full square of FLOPs whatever the mask, twice that backward, and no bytes for the scores. A mask that needs a
gradient is served by no such kernel on a CPU, so that attention is priced as its separate products. Memory is what the
operators' results occupy, to the byte; an allocator's rounding and a kernel's own workspace come on top.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from search.cost import results
from search.cost.fused import FusedAttention, grouped_mm_result
from search.cost.operators import Pricing, Traffic, pricing, tensors

Phase = Literal["forward", "backward"]


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
    """

    name: str
    phase: Phase
    dtype: str
    flops: int
    read: int
    written: int
    weights: int
    priced: bool = True
    count: int = 1


Table = tuple[Operator, ...]


@dataclass(frozen=True, slots=True)
class BlockCost:
    """What a block costs; ``a + b`` is the cost of both, ``a.times(n)`` that of n copies.

    Peaks combine by maximum: they are bytes above all that was live before the block, so that a model's peak is the
    largest over its blocks of the block's peak and what the other blocks and the streams between them hold meanwhile.

    Attributes:
        inference: operators of a forward pass without gradients.
        training: operators of a forward and a backward pass; empty if not measured.
        peak_inference: most bytes live at once above weights and inputs, results included.
        peak_training: the same over forward and backward; gradients of weights excluded, those of streams included.
        saved: bytes that autograd keeps from forward to backward, weights and inputs excluded.
        saved_inputs: bytes of the inputs that it keeps.
    """

    inference: Table = ()
    training: Table = ()
    peak_inference: int = 0
    peak_training: int = 0
    saved: int = 0
    saved_inputs: int = 0

    def __add__(self, other: BlockCost) -> BlockCost:
        return BlockCost(
            merge(self.inference + other.inference),
            merge(self.training + other.training),
            max(self.peak_inference, other.peak_inference),
            max(self.peak_training, other.peak_training),
            self.saved + other.saved,
            self.saved_inputs + other.saved_inputs,
        )

    def times(self, count: int) -> BlockCost:
        return replace(
            self,
            inference=tuple(replace(row, count=row.count * count) for row in self.inference),
            training=tuple(replace(row, count=row.count * count) for row in self.training),
            saved=self.saved * count,
            saved_inputs=self.saved_inputs * count,
        )

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


def measure_block(module: nn.Module, inputs: Sequence[Any] | Mapping[str, Any], *, train: bool) -> BlockCost:
    """Prices one module by running it on its inputs.

    Args:
        module: on the meta device, as are the inputs (both may be on a CPU, to compare).
        inputs: positional or named arguments. Inputs with ``requires_grad`` get gradients; others cost none.
        train: also run a training step. The module's modes are left as found.
    """
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    call = partial(module, *args, **kwargs)
    modes = {part: part.training for part in module.modules()}
    given = _storages(tensors([*args, *kwargs.values()]))
    weights = _storages(_weights(module))
    try:
        module.eval()
        with torch.no_grad(), _Meter(given, weights) as meter:
            result = call()
            del result
        cost = BlockCost(inference=merge(meter.rows), peak_inference=meter.peak())
        if not train:
            return cost
        module.train()
        gradients = _hold_gradients(module, [*args, *kwargs.values()])
        try:
            with torch.enable_grad(), _Meter(given, weights) as meter:
                _training_step(call, meter)
                own = {_key(p.grad) for p in module.parameters() if p.grad is not None}
            return replace(
                cost,
                training=merge(meter.rows),
                peak_training=meter.peak(without=own),
                saved=sum(size for key, size in meter.saved.items() if key not in given),
                saved_inputs=sum(size for key, size in meter.saved.items() if key in given),
            )
        finally:
            for tensor, gradient in gradients:
                tensor.grad = gradient
    finally:
        for part, mode in modes.items():
            part.training = mode


def _training_step(call: Callable[[], Any], meter: _Meter) -> None:
    with torch.autograd.graph.saved_tensors_hooks(meter.keep, _same):
        result = call()
    outputs = [tensor for tensor in tensors([result]) if tensor.requires_grad]
    if not outputs:
        return
    seed = _Seed.apply(*outputs)  # type: ignore[no-untyped-call]
    del result, outputs  # the next block's affair; what this one needs of them autograd holds
    meter.phase = "backward"
    torch.autograd.backward(seed, torch.empty(0, dtype=seed.dtype, device=seed.device))


class _Seed(torch.autograd.Function):
    """Ends a block: gives the gradients of its outputs to autograd alone, which frees them once they are used."""

    @staticmethod
    def forward(ctx: Any, *outputs: Tensor) -> Tensor:
        ctx.outputs = [(o.shape, o.dtype, o.device) for o in outputs]
        return torch.empty(0, dtype=outputs[0].dtype, device=outputs[0].device)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return tuple(torch.empty(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.outputs)


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down operators, and the births and deaths of storages."""

    def __init__(self, given: Mapping[int, int], weights: Mapping[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given, self.weights = given, weights
        self.rows: list[Operator] = []
        self.phase: Phase = "forward"
        self.events: list[tuple[int, int]] = []  # serial number of a storage, bytes (negative when it dies)
        self.live: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self.saved: dict[int, int] = {}
        self.fuse = FusedAttention(self.record)

    def __enter__(self) -> _Meter:
        self.fuse.__enter__()  # type: ignore[no-untyped-call]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.fuse.__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        price = pricing(func)
        if price.traffic is Traffic.VIEW:
            return func(*args, **kwargs)
        if func is torch.ops.aten._grouped_mm.default and args[0].is_meta:
            out = grouped_mm_result(*args, **kwargs)
        elif price.traffic is Traffic.NONE:
            out = func(*args, **kwargs)
        else:
            out = results.run(func, args, kwargs)
        made = [out] if isinstance(out, Tensor) else list(tensors([out]))
        if price.traffic is not Traffic.NONE:
            self.record(price, price.flops(args, kwargs, out), list(tensors((*args, *kwargs.values()))), made)
        for tensor in made:
            self._watch(tensor)
        return out

    def record(self, price: Pricing, count: int, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        reads = price.reads(inputs, outputs)
        weights = sum(size for tensor, size in zip(inputs, reads, strict=True) if _key(tensor) in self.weights)
        involved = [tensor.dtype for tensor in (*inputs, *outputs)]
        dtype = next((dtype for dtype in involved if dtype.is_floating_point), involved[0] if involved else None)
        name = str(dtype).removeprefix("torch.")
        written = price.writes(inputs, outputs)
        self.rows.append(Operator(price.name, self.phase, name, count, sum(reads), written, weights, price.known))

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.live or key in self.given or key in self.weights:
            return
        size, serial = storage.nbytes(), len(self.events)
        self.events.append((serial, size))
        self.live[key] = serial, weakref.ref(storage, partial(self._died, key, serial, size))

    def _died(self, key: int, serial: int, size: int, _: Any) -> None:
        del self.live[key]
        self.events.append((serial, -size))

    def keep(self, tensor: Tensor) -> Tensor:
        """Takes note of a tensor that autograd saves."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            self.saved[storage._cdata] = storage.nbytes()
        return tensor

    def peak(self, without: Iterable[int] = ()) -> int:
        """Most bytes live at once, some storages (by key, still live) not counted."""
        excluded = {self.live[key][0] for key in without if key in self.live}
        size = most = 0
        for serial, change in self.events:
            if serial not in excluded:
                size += change
                most = max(most, size)
        return most


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _storages(of: Iterable[Tensor]) -> dict[int, int]:
    return {_key(tensor): tensor.untyped_storage().nbytes() for tensor in of}


def _weights(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _hold_gradients(module: nn.Module, inputs: list[Any]) -> list[tuple[Tensor, Tensor | None]]:
    """Takes the gradients off a module's weights and its inputs, and returns them to be put back."""
    held = [(tensor, tensor.grad) for tensor in (*module.parameters(), *tensors(inputs)) if tensor.is_leaf]
    for tensor, _ in held:
        tensor.grad = None
    return held


def _same(tensor: Tensor) -> Tensor:
    return tensor
