"""Disentangled attention (schema in archspec.kinds.disentangled_attention)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kinds import disentangled_attention as kinds
from compiler.build import Make, project
from compiler.modules.attend import joined
from compiler.modules.heads import Heads, fitting, pairs, repeated
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.DisentangledAttention)
class DisentangledAttention(Heads):
    """Queries, keys and values of the tokens; keys and queries of the distances, made once for a batch."""

    def __init__(self, spec: kinds.DisentangledAttention, make: Make) -> None:
        super().__init__(spec, make)
        self.positions = make.node.streams["positions"]
        self.c2p, self.p2c = (f"{way}" in spec.terms for way in ("content_to_position", "position_to_content"))
        self.shared = spec.shared
        self.through = Through(self.inner) if spec.shared and self.qkv is not None else None
        if not spec.shared:
            self.position_key = make.linear("position_key") if self.c2p else None
            self.position_query = make.linear("position_query") if self.p2c else None
        reach = make.node.outer_types[self.positions].count
        self.attend = DisentangledAttend(spec, int(reach) // 2, self.head_width)

    def forward(self, x: Tokens, outer: Mapping[str, Tokens]) -> Tensor:
        rows = outer[self.positions]
        rows = rows.give(rows.features.to(x.features.dtype), rows.stream)  # tables are in single precision
        q, k, v = self.queries_keys_values(x)
        query, key = self.of_positions(rows)
        query = None if query is None or not self.p2c else self.split(query)
        key = None if key is None or not self.c2p else self.split(key)
        return project(self.out, self.attend(q, k, v, key, query, x.coordinates, x.valid, x.segment), x)

    def of_positions(self, rows: Tokens) -> tuple[Tensor | None, Tensor | None]:
        """Queries and keys of the distances."""
        if self.through is not None and self.qkv is not None:
            found = self.through(rows.features, self.qkv.weight, self.qkv.bias)
            return found[0], found[1]
        if self.shared:
            if self.kv is not None:
                return project(self.query, rows.features, rows), self.kv(rows.features).narrow(-1, 0, self.inner)
            return project(self.query, rows.features, rows), project(self.key, rows.features, rows)
        matrices = (self.position_query, self.position_key)
        query, key = (None if matrix is None else project(matrix, rows.features, rows) for matrix in matrices)
        return query, key


class Through(Leaf):
    """Queries and keys of rows by the first parts of a fused matrix."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        both = F.linear(rows, weight[: 2 * self.inner], None if bias is None else bias[: 2 * self.inner])
        return both[..., : self.inner], both[..., self.inner :]


class DisentangledAttend(Leaf):
    """Attention over ``[batch, heads, tokens, width]`` whose scores depend on distances.

    ``row_key`` and ``row_query`` are ``[1 or batch, heads, 2 reach, width]``, one row a distance.
    """

    def __init__(self, spec: kinds.DisentangledAttention, reach: int, head_width: int) -> None:
        super().__init__()
        self.reach, self.longest, self.dropout = reach, spec.longest, spec.dropout
        self.scale = 1 / math.sqrt(head_width * (1 + len(set(spec.terms))))

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, row_key: Tensor | None, row_query: Tensor | None,
        place: Tensor | None, valid: Tensor | None, segment: Tensor | None,
    ) -> Tensor:  # fmt: skip
        rows = self.rows(q.shape[2], q.device, place)
        if rows.shape[0] not in (1, q.shape[0]):
            rows = rows.repeat(q.shape[0] // rows.shape[0], 1, 1)
        rows = rows[:, None].expand(q.shape[0], q.shape[1], -1, -1)
        bias = None
        if row_key is not None:
            bias = (q @ repeated(row_key, q).mT).gather(-1, rows)
        if row_query is not None:
            other = (k @ repeated(row_query, k).mT).gather(-1, rows.mT).mT
            bias = other if bias is None else bias + other
        assert bias is not None
        mask = pairs(valid, q.shape[0])
        if segment is not None:
            segment = fitting(segment, q.shape[0])
            same = (segment[:, :, None] == segment[:, None, :])[:, None]
            mask = same if mask is None else mask & same
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=joined(mask, bias * self.scale, q), scale=self.scale,
            dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return y.transpose(1, 2).flatten(2)

    def rows(self, count: int, device: torch.device, place: Tensor | None) -> Tensor:
        """``[1 or batch, queries, keys]``: the row of each pair's distance."""
        if place is not None:
            return self.row(place[:, :, None] - place[:, None, :])
        here = torch.arange(count, device=device)
        every = self.row(torch.arange(1 - count, count, device=device))
        return every[here[:, None] - here + count - 1][None]

    def row(self, distance: Tensor) -> Tensor:
        """The row of each distance; a reach of 2m has the distances up to m, then buckets that widen up to ``longest``.

        ``m + ceil(log(d / m) / log((longest - 1) / m) (m - 1))`` for a distance d beyond m.
        """
        if self.longest is not None:
            middle = self.reach // 2
            far = distance.abs().clamp(min=middle)
            bend = torch.log(torch.tensor((self.longest - 1) / middle, device=distance.device))
            bucket = torch.ceil(torch.log(far / middle) / bend * (middle - 1)).long() + middle
            distance = torch.where(distance.abs() <= middle, distance, bucket * distance.sign())
        return (distance + self.reach).clamp(0, 2 * self.reach - 1)
