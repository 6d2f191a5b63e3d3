"""Disentangled attention (schema in archspec.kinds.disentangled_attention)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import disentangled_attention as kinds
from compiler.build import Make, project
from compiler.modules.attention import joined
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.DisentangledAttention)
class DisentangledAttention(nn.Module):
    """Queries, keys and values of the tokens; keys and queries of the distances, made once for a batch."""

    def __init__(self, spec: kinds.DisentangledAttention, make: Make) -> None:
        super().__init__()
        self.heads, self.shared = spec.heads, spec.shared
        self.positions = make.node.streams["positions"]
        self.c2p, self.p2c = (f"{way}" in spec.terms for way in ("content_to_position", "position_to_content"))
        self.inner = spec.inner(make.stream)
        self.qkv = self.query_key = None
        if not spec.shared and make.plain("query", "key", "value"):
            self.qkv = make.fused("query", "key", "value")
        else:
            if make.plain("query", "key"):
                self.query_key = make.fused("query", "key")
            else:
                self.query, self.key = make.linear("query"), make.linear("key")
            self.value = make.linear("value")
        if not spec.shared:
            self.position_key = make.linear("position_key") if self.c2p else None
            self.position_query = make.linear("position_query") if self.p2c else None
        reach = make.node.outer_types[self.positions].count
        self.attend = DisentangledAttend(spec, int(reach) // 2, self.inner // spec.heads)
        self.out = make.linear("out")

    def forward(self, x: Tokens, outer: Mapping[str, Tokens]) -> Tensor:
        rows = outer[self.positions]
        if self.qkv is not None:
            parts = self.qkv(x.features).split((self.inner, self.inner, self.inner), dim=-1)
            q, k, v = parts[0], parts[1], parts[2]
        else:
            pair = self.pair(x)
            q, k, v = pair[0], pair[1], project(self.value, x.features, x)
        if self.shared:
            pair = self.pair(rows)
            row_query, row_key = pair[0], pair[1]
        else:
            row_key = project(self.position_key, rows.features, rows) if self.position_key is not None else None
            row_query = project(self.position_query, rows.features, rows) if self.position_query is not None else None
        y = self.attend(
            self.split(q), self.split(k), self.split(v), self.split(row_key) if self.c2p else None,
            self.split(row_query) if self.p2c else None, x.coordinates, x.valid, x.segment,
        )  # fmt: skip
        return project(self.out, y, x)

    def pair(self, x: Tokens) -> tuple[Tensor, Tensor]:
        """Queries and keys by the matrices of the content."""
        if self.query_key is None:
            return project(self.query, x.features, x), project(self.key, x.features, x)
        parts = self.query_key(x.features).split((self.inner, self.inner), dim=-1)
        return parts[0], parts[1]

    def split(self, x: Tensor) -> Tensor:
        """``[batch, heads, tokens, width]``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


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
            bias = (q @ fitting(row_key, q).mT).gather(-1, rows)
        if row_query is not None:
            other = (k @ fitting(row_query, k).mT).gather(-1, rows.mT).mT
            bias = other if bias is None else bias + other
        assert bias is not None
        mask = None if valid is None else valid[:, None, None]
        if segment is not None:
            same = (segment[:, :, None] == segment[:, None, :])[:, None]
            mask = same if mask is None else mask & same
        if mask is not None and mask.shape[0] not in (1, q.shape[0]):
            mask = mask.repeat(q.shape[0] // mask.shape[0], 1, 1, 1)
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


def fitting(rows: Tensor, x: Tensor) -> Tensor:
    """Rows for the samples of x, which may be groups of samples."""
    return rows if rows.shape[0] in (1, x.shape[0]) else rows.repeat(x.shape[0] // rows.shape[0], 1, 1, 1)
