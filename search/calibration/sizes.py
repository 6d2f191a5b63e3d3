"""Grids of kernels, measured: products and attention by shape, and what a far working set costs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from search.cost.grid import Grid

Axes = Mapping[str, Sequence[float]]
Point = tuple[float, ...]


class Plan:
    """Points of one grid, to be measured in any order.

    A point whose work is more than `most` is not measured: it grows from its neighbours in proportion.

    Attributes:
        call: from a point to what is timed there.
    """

    def __init__(self, axes: Axes, call: Callable[..., Callable[[], Any]], most: float) -> None:
        self.axes = {name: tuple(sizes) for name, sizes in axes.items()}
        self.call, self.most = call, most

    def points(self) -> list[Point]:
        """Those that are measured."""
        return [point for point in product(*self.axes.values()) if prod(point) <= self.most]

    def grid(self, measured: Mapping[Point, float]) -> Grid:
        """The grid of what was measured, in seconds."""
        seconds: dict[Point, float] = {}
        for point in product(*self.axes.values()):
            seconds[point] = measured[point] if point in measured else self._grown(point, seconds)
        return Grid(axes=self.axes, seconds=tuple(seconds.values()))

    def _grown(self, point: Point, known: Mapping[Point, float]) -> float:
        """From the neighbours that are one size smaller along one axis."""
        found = []
        for axis, sizes in enumerate(self.axes.values()):
            place = sizes.index(point[axis])
            if place:
                near = (*point[:axis], sizes[place - 1], *point[axis + 1 :])
                found.append(known[near] * sizes[place] / sizes[place - 1])
        return sum(found) / len(found)


def products(dtype: torch.dtype, device: str, axes: Axes, most: float) -> Plan:
    """``[m, k]`` by a matrix stored as ``[n, k]``, as layers multiply; the matrix is near."""

    def call(m: int, k: int, n: int) -> Callable[[], Any]:
        x, weight = _random((m, k), dtype, device), _random((n, k), dtype, device)
        return lambda: F.linear(x, weight)

    return Plan(axes, call, most)


def far_products(dtype: torch.dtype, device: str, rows: Sequence[float], working_sets: Sequence[float]) -> Plan:
    """One product ``[m, 512]`` by ``[512, 512]`` of many whose matrices together are so many bytes."""
    width = 512

    def call(m: int, working_set: float) -> Callable[[], Any]:
        count = max(1, round(working_set / (width * width * dtype.itemsize)))
        weights = [_random((width, width), dtype, device) for _ in range(count)]
        x = _random((m, width), dtype, device)
        turn = 0

        def run() -> Any:
            nonlocal turn
            turn = (turn + 1) % count
            return F.linear(x, weights[turn])

        return run

    return Plan({"m": rows, "bytes": working_sets}, call, float("inf"))


def attention(
    dtype: torch.dtype, device: str, axes: Axes, most: float, *, heads: int, causal: bool, kept: bool = False
) -> Plan:
    """So many heads at once, laid out as layers do: tokens before heads, but head by head if they were ``kept``."""

    def call(queries: int, keys: int, width: int) -> Callable[[], Any]:
        q, k, v = (_random((1, n, heads, width), dtype, device).transpose(1, 2) for n in (queries, keys, keys))
        if kept:
            k, v = k.contiguous(), v.contiguous()
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return Plan(axes, call, most)


def far_attention(dtype: torch.dtype, device: str, working_sets: Sequence[float]) -> Plan:
    """One query of eight heads to 128 keys and values, one set of many that together are so many bytes."""
    shape = (1, 8, 128, 64)

    def call(working_set: float) -> Callable[[], Any]:
        count = max(1, round(working_set / (2 * prod(shape) * dtype.itemsize)))
        kept = cycle([(_random(shape, dtype, device), _random(shape, dtype, device)) for _ in range(count)])
        query = _random((1, 8, 1, 64), dtype, device)
        return lambda: F.scaled_dot_product_attention(query, *next(kept))

    return Plan({"bytes": working_sets}, call, float("inf"))


def biases(dtype: torch.dtype, device: str, rows: Sequence[float], widths: Sequence[float]) -> Plan:
    """What a bias adds to the product of ``[m, 64]`` and ``[64, n]``: both are one call, which the product leaves."""

    def call(m: int, n: int) -> Callable[[], Any]:
        x, weight, bias = _random((m, 64), dtype, device), _random((n, 64), dtype, device), _random((n,), dtype, device)
        return lambda: F.linear(x, weight, bias)

    return Plan({"m": rows, "n": widths}, call, float("inf"))


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float32, device=device).to(dtype)
