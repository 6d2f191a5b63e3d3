"""Vectors for the distances between tokens (schemas in archspec.kinds.distances)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import distances as kinds
from compiler.build import Make, weight
from compiler.modules.position import table
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.LearnedDistances)
class LearnedDistances(nn.Module):
    """``[1, 2 reach, width]``: one sample stands for all, so that what reads it works once for a batch."""

    def __init__(self, spec: kinds.LearnedDistances, make: Make) -> None:
        super().__init__()
        self.out = make.node.output
        self.weight = weight(2 * spec.reach, spec.width)
        self.initial = {"weight": ("normal", spec.std)}

    def forward(self, like: Tokens) -> Tokens:
        return Tokens(self.weight[None], self.out)


@builds(kinds.SinusoidalDistances)
class SinusoidalDistances(nn.Module):
    def __init__(self, spec: kinds.SinusoidalDistances, make: Make) -> None:
        super().__init__()
        self.out = make.node.output
        self.waves = DistanceWaves(spec)

    def forward(self, like: Tokens) -> Tokens:
        return Tokens(self.waves(like.features), self.out)


class DistanceWaves(Leaf):
    """``[1, 2 reach, width]``: sines of each distance, then cosines."""

    def __init__(self, spec: kinds.SinusoidalDistances) -> None:
        super().__init__()
        self.base = spec.base
        table(self, "values", 2 * spec.reach, spec.width)

    def fill(self) -> None:
        rows, width = self.values.shape
        rates = 1 / self.base ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
        angles = torch.arange(-rows // 2, rows // 2)[:, None] * rates
        self.values.copy_(torch.cat((angles.sin(), angles.cos()), dim=-1))

    def forward(self, like: Tensor) -> Tensor:
        return self.values[None].to(like.dtype if like.is_floating_point() else self.values.dtype)
