"""Relative attention (schema in archspec.kinds.relative_attention)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kinds import relative_attention as kinds
from compiler.build import Make, project, weight
from compiler.modules.attend import joined
from compiler.modules.heads import Heads, fitting, pairs, repeated
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.RelativeAttention)
class RelativeAttention(Heads):
    """Vectors of heads are ``[heads, width]``, ``segments`` of two labels and of one ``[2, heads, width]``."""

    def __init__(self, spec: kinds.RelativeAttention, make: Make) -> None:
        super().__init__(spec, make, apart=len(make.node.types) > 1)
        self.label, self.positions = spec.label, make.node.streams["positions"]
        self.position = make.linear("position")
        self.initial = {}
        for name in ("content_bias", "position_bias", "segment_bias", "segments"):
            shape = (2, self.heads, self.head_width) if name == "segments" else (self.heads, self.head_width)
            used = spec.label is not None or not name.startswith("segment")
            self.register_parameter(name, weight(*shape) if used else None)
            self.initial[name] = ("normal", spec.std)
        self.near = Near(spec)
        self.attend = RelativeAttend(spec, self.head_width)

    def forward(self, x: Tokens, *others: Tokens, outer: Mapping[str, Tokens]) -> Tensor:
        memory = others[0] if others else x
        step = memory.stream.axes[0].step
        between = x.stream.axes[0].step // step
        q, k, v = self.queries_keys_values(x, memory)
        rows = outer[self.positions]
        rows = rows.give(self.near(rows.features, x.features, memory.features, step, between), rows.stream)
        distances = self.split(project(self.position, rows.features, rows))
        labels = (None, None) if self.label is None else (x.labels[self.label], memory.labels[self.label])
        y = self.attend(
            q, k, v, distances, self.content_bias, self.position_bias, self.segment_bias, self.segments, *labels,
            memory.valid, between,
        )  # fmt: skip
        return project(self.out, y, x)


class Near(Leaf):
    """The rows of the distances ``[1 or batch, 2 reach, width]`` that occur, from the farthest back to ahead.

    Neighbours of the memory are ``step`` apart, and ``between`` of them are between two queries.
    """

    def __init__(self, spec: kinds.RelativeAttention) -> None:
        super().__init__()
        self.lone = spec.lone_first

    def forward(self, rows: Tensor, x: Tensor, memory: Tensor, step: int, between: int) -> Tensor:
        between = between if x.shape[1] != memory.shape[1] else 1  # so few tokens were not joined
        back = (x.shape[1] - 1) * between
        places = torch.arange(back, -memory.shape[1], -1, device=rows.device) - (between - 1 if self.lone else 0)
        index = (places * step + rows.shape[1] // 2).clamp(0, rows.shape[1] - 1)
        return rows[:, index].to(x.dtype)


class RelativeAttend(Leaf):
    """Attention of ``[batch, heads, tokens, width]`` with rows ``[1 or batch, heads, distances, width]`` of `Near`.

    Gives ``[batch, tokens, heads * width]``.
    """

    def __init__(self, spec: kinds.RelativeAttention, head_width: int) -> None:
        super().__init__()
        self.lone, self.joker = spec.lone_first, spec.joker
        self.dropout, self.scale = spec.dropout, 1 / math.sqrt(head_width)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, content_bias: Tensor, position_bias: Tensor,
        segment_bias: Tensor | None, segments: Tensor | None, label: Tensor | None, other: Tensor | None,
        valid: Tensor | None, between: int = 1,
    ) -> Tensor:  # fmt: skip
        between = between if q.shape[2] != k.shape[2] else 1
        scaled = q * self.scale
        bias = shifted((scaled + self.scale * position_bias[:, None]) @ repeated(rows, q).mT, k.shape[2], between)
        if label is not None and other is not None and segments is not None and segment_bias is not None:
            both = (scaled + self.scale * segment_bias[:, None]) @ segments.permute(1, 2, 0)
            label, other = fitting(label, q.shape[0]), fitting(other, q.shape[0])
            same = label[:, :, None] == other[:, None, :]
            if self.joker is not None:
                same = same | (label[:, :, None] == self.joker) | (other[:, None, :] == self.joker)
            bias = bias + torch.where(same[:, None], both[..., 1:], both[..., :1])
        if self.lone:
            bias[:, :, 0] = 0.0
            bias[..., 0] = 0.0
        y = F.scaled_dot_product_attention(
            q + content_bias[:, None], k, v, attn_mask=joined(pairs(valid, q.shape[0]), bias, q),
            scale=self.scale, dropout_p=self.dropout if self.training else 0.0,
        )  # fmt: skip
        return y.transpose(1, 2).flatten(2)


def shifted(scores: Tensor, memory: int, between: int) -> Tensor:
    """From scores by distance to scores by token: a query's row begins ``between`` places later than the one before.

    Seen as one line, rows that are so much shorter begin where they should.
    """
    queries = scores.shape[2]
    if queries == 1:
        return scores
    back, short = (queries - 1) * between, scores.shape[3] - between
    line = scores.flatten(2)[..., back : back + queries * short]
    return line.unflatten(2, (queries, short))[..., :memory]
