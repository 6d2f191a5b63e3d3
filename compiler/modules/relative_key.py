"""Relative places that queries read (schema in archspec.kinds.relative_key)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from archspec.kinds import relative_key as kinds
from compiler.build import Make, weight
from compiler.modules.relative import Distances
from compiler.registry import builds


@builds(kinds.RelativeKey)
class RelativeKey(Distances):
    """Biases ``[batch, heads, queries, memory]`` for queries ``[batch, queries, heads, width]``.

    Queries are multiplied with the vectors of all distances that there are, and each picks its own.
    """

    def __init__(self, spec: kinds.RelativeKey, make: Make) -> None:
        super().__init__()
        self.causal, self.reach = make.stream.causal, spec.reach
        self.scale = 1 / math.sqrt(make.stream.width)
        self.weight = weight(2 * spec.reach + 1, make.stream.width)
        self.initial = {"weight": ("normal", spec.std)}

    def forward(self, q: Tensor, k: Tensor, q_place: Tensor | None, k_place: Tensor | None) -> Tensor:
        index = (self.distances(q, k, q_place, k_place) + self.reach).clamp(0, 2 * self.reach)
        near = min(self.reach, max(q.shape[1], k.shape[1])) if q_place is None and self.decoding is None else self.reach
        rows = self.weight[self.reach - near : self.reach + near + 1]
        scores = torch.einsum("bqhd,rd->bhqr", q, rows) * self.scale
        index = (index - (self.reach - near))[:, None].expand(q.shape[0], q.shape[2], -1, -1)
        return scores.gather(-1, index)
