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


class Pool:
    """Random numbers that are more than any cache holds; each piece that is taken lies where none was for long."""

    def __init__(self, size: int, dtype: torch.dtype, device: str) -> None:
        self.numbers = _random((size // dtype.itemsize,), dtype, device)
        self.at = 0

    def take(self, *shape: int) -> torch.Tensor:
        """The next piece."""
        size = prod(shape)
        if self.at + size > len(self.numbers):
            self.at = 0
        piece = self.numbers[self.at : self.at + size].view(shape)
        self.at += size
        return piece


def products(dtype: torch.dtype, device: str, axes: Axes, most: float, pool: Pool | None = None) -> Plan:
    """``[m, k]`` by a matrix stored as ``[n, k]``, as layers multiply; the matrix is near, or another one each time."""

    def call(m: int, k: int, n: int) -> Callable[[], Any]:
        x = _random((m, k), dtype, device)
        if pool is not None:
            return lambda: F.linear(x, pool.take(n, k))
        weight = _random((n, k), dtype, device)
        return lambda: F.linear(x, weight)

    return Plan(axes, call, most)


def reach(dtype: torch.dtype, device: str, working_sets: Sequence[float]) -> Plan:
    """One product ``[1, 512]`` by ``[512, 512]`` of many whose matrices together are so many bytes."""
    width = 512

    def call(working_set: float) -> Callable[[], Any]:
        count = max(1, round(working_set / (width * width * dtype.itemsize)))
        weights = cycle([_random((width, width), dtype, device) for _ in range(count)])
        x = _random((1, width), dtype, device)
        return lambda: F.linear(x, next(weights))

    return Plan({"bytes": working_sets}, call, float("inf"))


def attention(
    dtype: torch.dtype, device: str, axes: Axes, most: float, *, heads: int, causal: bool = False, kept: bool = False,
    pool: Pool | None = None,
) -> Plan:  # fmt: skip
    """So many heads at once, laid out as layers do: tokens before heads, but head by head if they were ``kept``.

    What was kept is near, or from a pool.
    """

    def call(queries: int, keys: int, width: int) -> Callable[[], Any]:
        q = _random((1, queries, heads, width), dtype, device).transpose(1, 2)
        if pool is not None:
            shape = (1, heads, keys, width)
            return lambda: F.scaled_dot_product_attention(q, pool.take(*shape), pool.take(*shape))
        k, v = (_random((1, keys, heads, width), dtype, device).transpose(1, 2) for _ in range(2))
        if kept:
            k, v = k.contiguous(), v.contiguous()
        return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return Plan(axes, call, most)


def biases(dtype: torch.dtype, device: str, rows: Sequence[float], widths: Sequence[float]) -> Plan:
    """What a bias adds to the product of ``[m, 64]`` and ``[64, n]``: both are one call, which the product leaves."""

    def call(m: int, n: int) -> Callable[[], Any]:
        x, weight, bias = _random((m, 64), dtype, device), _random((n, 64), dtype, device), _random((n,), dtype, device)
        return lambda: F.linear(x, weight, bias)

    return Plan({"m": rows, "n": widths}, call, float("inf"))


def _random(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float32, device=device).to(dtype)
