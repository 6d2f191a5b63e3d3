"""Positions (schemas in archspec.kinds.position)."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor, nn

from archspec.kinds import position as kinds
from archspec.streams import Stream
from compiler.build import Make, weight
from compiler.registry import Keeper, Leaf, builds
from compiler.tokens import Tokens


def table(leaf: nn.Module, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
    """A buffer that is computed from the spec and not stored with the weights; ``fill`` gives it its values."""
    leaf.register_buffer(name, torch.empty(shape, dtype=dtype, device="meta"), persistent=False)


@builds(kinds.LearnedPosition)
class LearnedPosition(nn.Module):
    def __init__(self, spec: kinds.LearnedPosition, make: Make) -> None:
        super().__init__()
        stream = make.stream
        self.weight = weight(spec.places(stream) + spec.offset, stream.width)
        self.initial = {"weight": ("normal", spec.std)}
        self.lookup = Lookup(stream, spec)

    def forward(self, x: Tokens) -> Tensor:
        return x.features + self.lookup(self.weight, x.features, x.coordinates)


class Lookup(Keeper):
    """Rows of a table of places for tokens ``[batch, tokens, width]``."""

    def __init__(self, stream: Stream, spec: kinds.LearnedPosition) -> None:
        super().__init__()
        self.offset = spec.offset
        self.whole = spec.over is None
        self.sizes = [int(axis.size) for axis in stream.axes] if not self.whole else []
        self.kept = [axis.name in (spec.over or []) for axis in stream.axes]
        self.causal = stream.causal

    def forward(self, rows: Tensor, x: Tensor, coordinates: Tensor | None) -> Tensor:
        if self.decoding is not None and self.causal:
            coordinates = self.decoding.places(x.shape[1], x.device)
        if coordinates is not None:
            return rows[coordinates + self.offset]
        if self.whole:
            return rows[self.offset : self.offset + x.shape[1]]
        shape = [size if kept else 1 for size, kept in zip(self.sizes, self.kept, strict=True)]
        grid = rows.view(*shape, rows.shape[-1]).expand(*self.sizes, rows.shape[-1])
        return grid.reshape(-1, rows.shape[-1])


@builds(kinds.SinusoidalPosition)
class SinusoidalPosition(nn.Module):
    def __init__(self, spec: kinds.SinusoidalPosition, make: Make) -> None:
        super().__init__()
        stream = make.stream
        self.waves = Waves(stream.most or spec.length or 0, stream.width, spec.base, causal=stream.causal)

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.waves(x.features, x.coordinates)
        return out


class Waves(Keeper):
    """Adds sines (even features) and cosines (odd features) of the token's place."""

    def __init__(self, length: int, width: int, base: float, *, causal: bool) -> None:
        super().__init__()
        self.base, self.causal = base, causal
        table(self, "values", length, width)

    def fill(self) -> None:
        length, width = self.values.shape
        rates = self.base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
        self.values.copy_(torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1))

    def forward(self, x: Tensor, coordinates: Tensor | None) -> Tensor:
        if self.decoding is not None and self.causal:
            coordinates = self.decoding.places(x.shape[1], x.device)
        rows = self.values[: x.shape[1]] if coordinates is None else self.values[coordinates]
        return x + rows.to(x.dtype)


@builds(kinds.Alibi)
class Alibi(Keeper):
    """Biases ``[1 or batch, heads, queries, memory]``: minus a slope times the distance."""

    def __init__(self, spec: kinds.Alibi, make: Make) -> None:
        super().__init__()
        self.heads = 1  # set by the attention that owns it
        self.causal = make.stream.causal

    def sized(self, heads: int) -> None:
        """Fixes the number of heads."""
        self.heads = heads
        table(self, "slopes", heads)

    def fill(self) -> None:
        self.slopes.copy_(torch.tensor(slopes(self.heads)))

    def forward(self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None) -> Tensor:
        if self.decoding is not None and self.causal:  # the distance between two tokens is that of their indices
            end = self.decoding.position + k.shape[1]
            b = torch.arange(end, device=k.device)[None]
            a = b[:, end - q.shape[1] :]
        else:
            a = torch.arange(q.shape[1], device=q.device)[None] if q_place is None else q_place
            b = torch.arange(k.shape[1], device=k.device)[None] if k_place is None else k_place
        distance = (a[:, :, None] - b[:, None, :]).abs()
        return -self.slopes[:, None, None].to(q.dtype) * distance[:, None].to(q.dtype)


def slopes(heads: int) -> list[float]:
    """ALiBi's slopes: powers of 2**(-8/n) for the next lower power of two n, then every other of the finer series."""
    power = 2 ** math.floor(math.log2(heads))
    series = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    finer = [2 ** (-4 * (head + 1) / power) for head in range(2 * power)]
    return series + finer[::2][: heads - power]


@builds(kinds.RelativeBiasTable)
class RelativeBiasTable(Leaf):
    """Biases ``[1, heads, tokens, tokens]`` looked up by the offset between two tokens of a grid."""

    def __init__(self, spec: kinds.RelativeBiasTable, make: Make) -> None:
        super().__init__()
        self.sizes = [int(axis.size) for axis in make.stream.axes]
        self.std = spec.std
        table(self, "offsets", math.prod(self.sizes), math.prod(self.sizes), dtype=torch.int64)

    def sized(self, heads: int) -> None:
        """Fixes the number of heads."""
        self.weight = weight(math.prod(2 * size - 1 for size in self.sizes), heads)
        self.initial = {"weight": ("truncated", self.std)}

    def fill(self) -> None:
        places = torch.tensor(list(product(*(range(size) for size in self.sizes))))
        index = torch.zeros(len(places), len(places), dtype=torch.int64)
        for axis, size in enumerate(self.sizes):
            offset = places[:, None, axis] - places[None, :, axis] + size - 1
            index = index * (2 * size - 1) + offset
        self.offsets.copy_(index)

    def forward(self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None) -> Tensor:
        return self.weight[self.offsets].permute(2, 0, 1)[None]
