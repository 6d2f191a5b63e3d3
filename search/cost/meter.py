"""Runs a module once on the meta device and writes down every operator that it executes.

`measure_block` gives a `BlockCost`: for inference (``eval()``, no gradients) and for training (``train()``, forward and
backward) the operators with their FLOPs and bytes, and the bytes that are live beside weights and inputs.

What is counted. FLOPs are those of `search.cost.operators`. ``scaled_dot_product_attention`` of four-dimensional
tensors counts as one fused operator, as FlashAttention (Dao et al. 2022, arXiv 2205.14135) and the kernels of CPUs run
it: the full square of FLOPs whatever the mask, twice that backward, and no bytes for the scores. What is served by no
such kernel is priced as its separate products (`search.cost.fused`). Memory is what the
operators' results occupy, to the byte; an allocator's rounding and a kernel's own workspace come on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from search.cost import results
from search.cost.block import BlockCost, Flow, Operator, Phase, Result, Table, merge
from search.cost.fused import Fused, grouped_mm_result
from search.cost.operators import Pricing, Traffic, pricing, scattered, tensors
from search.cost.recording import Recording


def measure_block(
    module: nn.Module, inputs: Sequence[Any] | Mapping[str, Any], *, train: bool, seeds: Container[int] | None = None,
    processor: str = "gpu",
) -> BlockCost:  # fmt: skip
    """Prices one module by running it on its inputs.

    Args:
        module: on the meta device, as are the inputs (both may be on a CPU, to compare).
        inputs: positional or named arguments. Inputs with ``requires_grad`` get gradients; others cost none.
        train: also run a training step. The module's modes are left as found.
        seeds: numbers of the results that get a gradient; all that can by default.
        processor: cpu, gpu or tpu; they do not have the same fused kernels.
    """
    return record_block(module, inputs, train=train, seeds=seeds, processor=processor).cost()


def record_block(
    module: nn.Module, inputs: Sequence[Any] | Mapping[str, Any], *, train: bool, seeds: Container[int] | None = None,
    processor: str = "gpu", limit: int | None = None,
) -> Recording:  # fmt: skip
    """All that happens while a module runs, as `measure_block` sums it up.

    Args:
        limit: operators of inference, at most.

    Errors:
        LongRun: there are more.
    """
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (tuple(inputs), {})
    call = partial(module, *args, **kwargs)
    modes = {part: part.training for part in module.modules()}
    tensors_in = list(tensors([*args, *kwargs.values()]))
    given = _storages(tensors_in)
    weights = _storages(_weights(module))
    try:
        module.eval()
        with torch.no_grad(), _Meter(given, weights, processor, limit) as meter:
            result = call()
            flow = Flow(inference=_results(result, tensors_in, meter))
            del result
        live, _ = meter.live_bytes()
        run = Recording(inference=meter.rows, inference_live=live, flow=flow)
        if not train:
            return run
        module.train()
        gradients = _hold_gradients(module, tensors_in)
        try:
            with torch.enable_grad(), _Meter(given, weights, processor) as meter:
                results = _training_step(call, tensors_in, meter, seeds)
                own = {_key(p.grad) for p in module.parameters() if p.grad is not None}
            forward, backward = meter.live_bytes(without=own)
            flow = replace(
                flow,
                training=results,
                saved=tuple(n for n, tensor in enumerate(tensors_in) if _key(tensor) in meter.saved),
                reached=tuple(n for n, tensor in enumerate(tensors_in) if tensor.is_leaf and tensor.grad is not None),
            )
            return replace(
                run,
                training=meter.rows,
                forward_live=forward,
                backward_live=backward,
                gradients_live=meter.live_bytes()[1],
                saved=sum(size for key, size in meter.saved.items() if key not in given),
                flow=flow,
            )
        finally:
            for tensor, gradient in gradients:
                tensor.grad = gradient
    finally:
        for part, mode in modes.items():
            part.training = mode


def _training_step(
    call: Callable[[], Any], given: Sequence[Tensor], meter: _Meter, seeds: Container[int] | None
) -> tuple[Result, ...]:
    with torch.autograd.graph.saved_tensors_hooks(meter.keep, _same):
        result = call()
    results = _results(result, given, meter)
    outputs = [
        tensor
        for number, tensor in enumerate(tensors([result]))
        if tensor.requires_grad and (seeds is None or number in seeds)
    ]
    seed = _Seed.apply(*outputs) if outputs else None  # type: ignore[no-untyped-call]
    del result, outputs  # the next block's affair; what this one needs of them autograd holds
    meter.turn()
    if seed is not None:
        torch.autograd.backward(seed, torch.empty(0, dtype=seed.dtype, device=seed.device))
    return results


def _results(result: Any, given: Sequence[Tensor], meter: _Meter) -> tuple[Result, ...]:
    places: dict[int, int | None] = dict.fromkeys(meter.weights)
    places |= {_key(tensor): ~number for number, tensor in reversed(list(enumerate(given)))}
    found = []
    for tensor in tensors([result]):
        key = _key(tensor)
        place = places.setdefault(key, len(places))
        shape, stride, size = tuple(tensor.shape), tensor.stride(), tensor.untyped_storage().nbytes()
        found.append(Result(shape, stride, tensor.dtype, tensor.requires_grad, place, size, key in meter.saved))
    return tuple(found)


class _Seed(torch.autograd.Function):
    """Ends a block: gives the gradients of its outputs to autograd alone, which frees them once they are used."""

    @staticmethod
    def forward(ctx: Any, *outputs: Tensor) -> Tensor:
        ctx.outputs = [(o.shape, o.dtype, o.device) for o in outputs]
        return torch.empty(0, dtype=outputs[0].dtype, device=outputs[0].device)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return tuple(torch.empty(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.outputs)


class LongRun(Exception):
    """A run has more operators than wanted: those so far, and the sizes of what they made."""

    def __init__(self, rows: list[Operator], sizes: set[int]) -> None:
        super().__init__()
        self.rows, self.sizes = rows, sizes


def metered(run: Callable[[], Any]) -> Table:
    """The operators of a call on the meta device, without gradients."""
    with torch.no_grad(), _Meter({}, {}) as meter:
        run()
    return merge(meter.rows)


def measure_decoded(
    module: nn.Module, inputs: Sequence[Tensor], kept: Iterable[Tensor], processor: str = "gpu"
) -> BlockCost:
    """Prices one call of a module that goes on from what it kept, which is read from as far as weights are."""
    held = _storages(kept)
    with torch.no_grad(), _Meter(_storages(inputs) | held, _storages(_weights(module)) | held, processor) as meter:
        result = module(*inputs)
        results = _results(result, (), meter)
        del result
    live, _ = meter.live_bytes()
    return Recording(meter.rows, live, Flow(results, results)).cost()


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down operators, and the births and deaths of storages."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or else the first operator imports torch's compiler, for most of a second

    def __init__(
        self, given: Mapping[int, int], weights: Mapping[int, int], processor: str = "gpu", limit: int | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = limit
        self.sizes: set[int] = set()
        self.given, self.weights = given, weights
        self.rows: list[Operator] = []
        self.phase: Phase = "forward"
        self.events: list[tuple[int, int]] = []  # serial number of a storage, bytes (negative when it dies)
        self.live: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self.saved: dict[int, int] = {}
        self.turned = 2**63  # number of events before the backward pass
        self.fuse = Fused(self.record, processor)

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
        silent = self.fuse.inside
        if price.traffic is Traffic.VIEW:
            if not silent:
                self.rows.append(_VIEWS[self.phase])
            return func(*args, **kwargs)
        if func is torch.ops.aten._grouped_mm.default and args[0].is_meta:
            out = grouped_mm_result(*args, **kwargs)
        elif price.traffic is Traffic.NONE:
            out = func(*args, **kwargs)
        else:
            out = results.run(func, args, kwargs)
        made = [out] if isinstance(out, Tensor) else list(tensors([out]))
        if price.traffic is not Traffic.NONE and not silent:
            count, shape = price.flops(args, kwargs, out), price.shape(args, out)
            self.record(price, count, list(tensors((*args, *kwargs.values()))), made, shape)
        for tensor in made:
            self._watch(tensor)
        if self.limit is not None:
            self._limit(made)
        return out

    def record(
        self, price: Pricing, count: int, inputs: Sequence[Tensor], outputs: Sequence[Tensor], shape: tuple[int, ...]
    ) -> None:
        reads = price.reads(inputs, outputs)
        weights = sum(size for tensor, size in zip(inputs, reads, strict=True) if _key(tensor) in self.weights)
        involved = [tensor.dtype for tensor in (*inputs, *outputs)]
        rational = (dtype.to_real() for dtype in involved if dtype.is_floating_point or dtype.is_complex)
        dtype = next(rational, involved[0] if involved else None)
        name = str(dtype).removeprefix("torch.")
        written = price.writes(inputs, outputs)
        if price.work == "traffic" and scattered((*inputs, *outputs)):
            shape = (1,)
        self.rows.append(
            Operator(price.name, self.phase, name, count, sum(reads), written, weights, price.known, price.work, shape)
        )

    def _limit(self, made: Sequence[Tensor]) -> None:
        self.sizes.update(size for tensor in made for size in tensor.shape)
        if self.limit is not None and len(self.rows) > self.limit:
            raise LongRun(self.rows, self.sizes)

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
        if self.phase == "forward":
            self.saved.pop(key, None)  # by a part of the graph that nothing came of

    def keep(self, tensor: Tensor) -> Tensor:
        """Takes note of a tensor that autograd saves."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.weights:
            self.saved[storage._cdata] = storage.nbytes()
        return tensor

    def turn(self) -> None:
        """The forward pass is over."""
        self.phase, self.turned = "backward", len(self.events)

    def live_bytes(self, without: Iterable[int] = ()) -> tuple[list[int], list[int]]:
        """Bytes live after each change, forward and backward; some storages (by key, still live) not counted."""
        excluded = {self.live[key][0] for key in without if key in self.live}
        size = 0
        found: tuple[list[int], list[int]] = [], []
        for number, (serial, change) in enumerate(self.events):
            if serial not in excluded:
                size += change
            found[number >= self.turned].append(size)
        return found


_VIEWS = {phase: Operator("view", phase, "", 0, 0, 0, 0, work="view") for phase in get_args(Phase)}


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
