"""Global-local attention (schema in archspec.kinds.global_local_attention)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kinds import global_local_attention as kinds
from compiler.build import Make, project, weight
from compiler.modules.heads import Heads, fitting, masked
from compiler.modules.kernel import attention, blocks
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.GlobalLocalAttention)
class GlobalLocalAttention(Heads):
    """Vectors of pairs, for global and for long queries: ``inside [2, distances, heads, width]``, ``across [2, 1 or 2,
    heads, width]``, the first of two for pairs of one label."""

    def __init__(self, spec: kinds.GlobalLocalAttention, make: Make) -> None:
        super().__init__(spec, make)
        self.label = spec.label
        self.inside = weight(2, 2 * spec.reach + 1, self.heads, self.head_width)
        self.across = weight(2, 1 if spec.label is None else 2, self.heads, self.head_width)
        self.initial = dict.fromkeys(("inside", "across"), ("normal", spec.std))
        self.attend = GlobalLocalAttend(spec, self.head_width, int(make.stream.spans[0].count))

    def forward(self, x: Tokens) -> Tensor:
        label = None if self.label is None else x.labels[self.label]
        y = self.attend(*self.queries_keys_values(x), self.inside, self.across, x.valid, label)
        return project(self.out, y, x)


class GlobalLocalAttend(Leaf):
    """Attention of ``[batch, heads, tokens, width]``, the first ``count`` of them global.

    Gives ``[batch, tokens, heads * width]``.
    """

    def __init__(self, spec: kinds.GlobalLocalAttention, head_width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.radius, self.reach, self.blocked, self.dropout = spec.radius, spec.reach, spec.blocked, spec.dropout
        self.scale = 1 / math.sqrt(head_width)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, inside: Tensor, across: Tensor, valid: Tensor | None,
        label: Tensor | None,
    ) -> Tensor:  # fmt: skip
        count, batch = self.count, q.shape[0]
        real = torch.ones(1, q.shape[2], dtype=torch.bool, device=q.device) if valid is None else fitting(valid, batch)
        label = torch.zeros_like(real, dtype=torch.int64) if label is None else fitting(label, batch)
        vectors = [torch.cat((a, b)) for a, b in zip(inside, across, strict=True)]
        rate = self.dropout if self.training else 0.0
        places = torch.arange(count, device=q.device)
        same = (label[:, :count, None] == label[:, None])[:, None]
        mask = self.scored(
            q[:, :, :count], vectors[0], places - places[:, None], same.split((count, q.shape[2] - count), dim=-1),
            real[:, None, None].split((count, q.shape[2] - count), dim=-1), ("g2g", "g2l"),
        )  # fmt: skip
        above = attention(q[:, :, :count], k, v, mask, scale=self.scale, rate=rate)
        below = self.local(q, k, v, vectors[1], real, label, count, rate)
        return torch.cat((above, below), dim=2).transpose(1, 2).flatten(2)

    def local(
        self, q: Tensor, k: Tensor, v: Tensor, vectors: Tensor, real: Tensor, label: Tensor, count: int, rate: float
    ) -> Tensor:  # fmt: skip
        """What long tokens read: blocks as long as the radius read three of them and the global tokens."""
        tokens = q.shape[2] - count
        size = min(self.radius, tokens)
        ends = (size, size + -tokens % size)
        asked = blocks(q[:, :, count:], size)
        read = []
        for x in (k, v):
            near = F.pad(x[:, :, count:], (0, 0, *ends)).unfold(2, 3 * size, size).permute(0, 2, 1, 4, 3)
            far = x[:, None, :, :count].expand(-1, near.shape[1], -1, -1, -1)
            read.append(torch.cat((near, far), dim=3).flatten(0, 1))
        distance = torch.arange(-size, 2 * size, device=q.device) - torch.arange(size, device=q.device)[:, None]
        mine = F.pad(label[:, count:], (0, -tokens % size)).unflatten(1, (-1, size))[:, :, None, :, None]
        beside = F.pad(label[:, count:], ends).unfold(1, 3 * size, size)[:, :, None, None]
        there = F.pad(real[:, count:], ends).unfold(1, 3 * size, size)[:, :, None, None]
        same = mine == beside, mine == label[:, None, None, None, :count]
        seen = there & (distance.abs() <= self.radius), real[:, None, None, None, :count]
        mask = self.scored(asked, vectors, distance, same, seen, ("l2l", "l2g"))
        y = attention(asked.flatten(0, 1), read[0], read[1], mask.flatten(0, 1), scale=self.scale, rate=rate)
        return y.unflatten(0, (q.shape[0], -1)).transpose(1, 2).flatten(2, 3)[:, :, :tokens]

    def scored(
        self, q: Tensor, vectors: Tensor, distance: Tensor, same: tuple[Tensor, ...], seen: tuple[Tensor, ...],
        pieces: tuple[str, str],
    ) -> Tensor:  # fmt: skip
        """What is added to the scores of ``q [batch, …, heads, queries, width]`` in two pieces, side by side.

        The first has ``distance [queries, memory]``; ``same`` and ``seen`` of both can be expanded to their scores.
        """
        told = torch.einsum("...hqd,rhd->...hqr", q * self.scale, vectors)
        index = distance.clamp(-self.reach, self.reach) + self.reach
        first = told.gather(-1, index.expand(*told.shape[:-1], -1))
        second = torch.where(same[1], told[..., 2 * self.reach + 1, None], told[..., -1:])
        parts = [
            masked(scores, may & alike if piece in self.blocked else may)
            for scores, alike, may, piece in zip((first, second), same, seen, pieces, strict=True)
        ]
        return torch.cat(parts, dim=-1)
