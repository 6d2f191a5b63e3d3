"""Times of the operators that move memory: each that a model executes is run again on tensors of its own, at all sizes.

Nobody lists them: a model is run once, and what it executes beside products and attention is written down with the
shapes, strides and types of its arguments. So an operator of a new block is measured when a model with it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from math import exp, log
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from search.cost.grid import Grid
from search.cost.kernels import APART
from search.cost.operators import Pricing, Traffic, pricing, scattered, tensors

NORM = "aten.rms_norm"
AROUND, MOST = 2**25, 16  # bytes, and sets of tensors, among which an operator's go by
STEP = 4.0  # sizes of one operator are at least this factor apart


class Call(NamedTuple):
    """One execution of an operator, its tensors as they were laid out."""

    run: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def ready(self, device: str, size: int) -> Callable[[], Any]:
        """What executes it on fresh tensors, on a CPU on others each time: what a model reads is seldom nearest.

        Args:
            size: bytes that it reads and writes.
        """
        count = max(2, min(MOST, AROUND // size)) if torch.device(device).type == "cpu" else 1
        given = cycle([(_made(self.args, device), _made(self.kwargs, device)) for _ in range(count)])

        def run() -> Any:
            args, kwargs = next(given)
            return self.run(*args, **kwargs)

        return run


class _Layout(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


Calls = dict[str, dict[int, Call]]  # by name and bytes


def executed(run: Callable[[], Any]) -> Calls:
    """What a call executes beside products, attention and views."""
    found: Calls = {}
    with _Norms(found), _Calls(found):
        run()
    return found


def chosen(found: Iterable[Calls]) -> Calls:
    """Of each operator, the sizes that are far enough apart, the largest among them."""
    every: Calls = {}
    for calls in found:
        for name, sizes in calls.items():
            every.setdefault(name, {}).update(sizes)
    kept: Calls = {}
    for name, sizes in every.items():
        mine = kept[name] = {}
        last = float("inf")
        for size in sorted(sizes, reverse=True):
            if size * STEP <= last:
                mine[size] = sizes[size]
                last = size
    return kept


def curve(times: Mapping[int, float]) -> Grid:
    """Seconds by bytes; a larger size never takes less: neighbours for which it does share their mean."""
    sizes = sorted(times)
    pools: list[tuple[float, int]] = []  # the mean logarithm of some neighbours, and how many they are
    for size in sizes:
        pools.append((log(times[size]), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    seconds = tuple(exp(mean) for mean, count in pools for _ in range(count))
    return Grid(axes={"bytes": tuple(map(float, sizes))}, seconds=seconds)


class _Norms(TorchFunctionMode):
    def __init__(self, found: Calls) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is F.rms_norm:
            size = out.nbytes + sum(tensor.nbytes for tensor in tensors((*args, *kwargs.values())))
            self.found.setdefault(NORM, {})[size] = Call(func, _kept(args), _kept(kwargs))
        return out


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, found: Calls) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        price: Pricing = pricing(func)
        out = func(*args, **kwargs)
        silent = price.traffic in (Traffic.VIEW, Traffic.NONE) or func.namespace != "aten"
        depthwise = price.work == "convolution" and price.shape(args, out)[3] == 1  # the rest are products
        if depthwise or (price.work == "traffic" and price.formula is None and not silent):
            inputs, made = list(tensors((*args, *kwargs.values()))), list(tensors([out]))
            size = sum(price.reads(inputs, made)) + price.writes(inputs, made)
            if size:
                name = price.name + APART * scattered((*inputs, *made))
                self.found.setdefault(name, {})[size] = Call(func, _kept(args), _kept(kwargs))
        return out


def _kept(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Layout(tuple(value.shape), value.stride(), value.dtype)
    if type(value) in (list, tuple):
        return type(value)(map(_kept, value))
    if isinstance(value, dict):
        return {key: _kept(item) for key, item in value.items()}
    return value


def _made(value: Any, device: str) -> Any:
    if isinstance(value, _Layout):
        tensor = torch.empty_strided(value.shape, value.stride, dtype=value.dtype, device=device)
        if value.dtype.is_floating_point or value.dtype.is_complex:
            return tensor.fill_(1)  # in the domain of roots and logarithms
        return tensor.zero_()  # indices that are valid, masks that hide nothing
    if type(value) in (list, tuple):
        return type(value)(_made(item, device) for item in value)
    if isinstance(value, dict):
        return {key: _made(item, device) for key, item in value.items()}
    return value
