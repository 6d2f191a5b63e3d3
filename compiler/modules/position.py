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
        return x.features + self.lookup(self.weight, x.features, x.coordinates, x.valid)


class Lookup(Keeper):
    """Rows of a table of places for tokens ``[batch, tokens, width]``."""

    def __init__(self, stream: Stream, spec: kinds.LearnedPosition) -> None:
        super().__init__()
        self.offset, self.counted = spec.offset, spec.counted
        self.whole = spec.over is None
        self.sizes = [int(axis.size) for axis in stream.axes] if not self.whole else []
        self.kept = [axis.name in (spec.over or []) for axis in stream.axes]
        self.causal = stream.causal

    def forward(self, rows: Tensor, x: Tensor, coordinates: Tensor | None, valid: Tensor | None = None) -> Tensor:
        if self.decoding is not None and self.causal:
            coordinates = self.decoding.places(x.shape[1], x.device)
        elif self.counted and valid is not None and coordinates is None:
            coordinates = counted(valid).clamp(min=-self.offset)
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
        self.waves = Waves(spec, stream.most or spec.length or 0, stream)

    def forward(self, x: Tokens) -> Tensor:
        out: Tensor = self.waves(x.features, x.coordinates, x.valid)
        return out


class Waves(Keeper):
    """Adds sines and cosines of the token's place."""

    def __init__(self, spec: kinds.SinusoidalPosition, length: int, stream: Stream) -> None:
        super().__init__()
        self.spec_, self.causal = spec, stream.causal
        table(self, "values", length, stream.width)

    def fill(self) -> None:
        length, width = self.values.shape
        spec, number = self.spec_, torch.float32 if self.spec_.closed else torch.float64  # as models were trained
        steps = width // 2 - 1 if spec.closed else width // 2
        rates = (-math.log(spec.base) / steps * torch.arange(width // 2, dtype=number)).exp()
        angles = (torch.arange(length, dtype=number) + spec.offset)[:, None] * rates
        parts = (angles.sin(), angles.cos())
        joined = torch.cat(parts, dim=-1) if spec.layout == "halves" else torch.stack(parts, dim=-1).flatten(1)
        self.values.copy_(joined)

    def forward(self, x: Tensor, coordinates: Tensor | None, valid: Tensor | None = None) -> Tensor:
        if self.decoding is not None and self.causal:
            coordinates = self.decoding.places(x.shape[1], x.device)
        elif self.spec_.counted and valid is not None and coordinates is None:
            coordinates = counted(valid).clamp(min=0)
        rows = self.values[: x.shape[1]] if coordinates is None else self.values[coordinates]
        return x + rows.to(x.dtype)


def counted(valid: Tensor) -> Tensor:
    """Places ``[batch, tokens]`` that count real tokens; -1 for padding."""
    return valid.cumsum(1) * valid - 1


@builds(kinds.Alibi)
class Alibi(Keeper):
    """Biases ``[1 or batch, heads, queries, memory]``: minus a slope times the distance.

    Rounded, it is ``[…, 1, memory]``, a slope times the memory's place: the softmax sees no difference in what all of a
    query's scores have in common.
    """

    def __init__(self, spec: kinds.Alibi, make: Make) -> None:
        super().__init__()
        self.spec_ = spec
        self.heads = 1  # set by the attention that owns it
        self.causal = make.stream.causal

    def sized(self, heads: int) -> None:
        """Fixes the number of heads."""
        self.heads = heads
        table(self, "slopes", heads)

    def fill(self) -> None:
        factor = 1.0 if self.spec_.rounded else self.spec_.factor
        self.slopes.copy_(torch.tensor(slopes(self.heads, self.spec_.steepest)) * factor)

    def forward(self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None) -> Tensor:
        if self.decoding is not None and self.causal:  # the distance between two tokens is that of their indices
            end = self.decoding.position + k.shape[1]
            b = torch.arange(end, device=k.device)[None]
            a = b[:, end - q.shape[1] :]
        else:
            a = torch.arange(q.shape[1], device=q.device)[None] if q_place is None else q_place
            b = torch.arange(k.shape[1], device=k.device)[None] if k_place is None else k_place
        if self.spec_.rounded:
            if self.decoding is not None and self.decoding.start is not None:
                b = (b - self.decoding.start[:, None]).clamp(min=0)
            steps = self.slopes.to(torch.bfloat16)[:, None, None] * b[:, None, None]
            return steps.to(q.dtype) * self.spec_.factor
        distance = (a[:, :, None] - b[:, None, :]).abs()
        return -self.slopes[:, None, None].to(q.dtype) * distance[:, None].to(q.dtype)


def slopes(heads: int, steepest: float = 8.0) -> list[float]:
    """ALiBi's slopes: powers of 2**(-8/n) for the next lower power of two n, then every other of the finer series."""
    power = 2 ** math.floor(math.log2(heads))
    series = [2 ** (-steepest * (head + 1) / power) for head in range(power)]
    finer = [2 ** (-steepest / 2 * (head + 1) / power) for head in range(2 * power)]
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
