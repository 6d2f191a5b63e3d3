"""Pools of features (schema in archspec.kinds.pool_features)."""

from __future__ import annotations

from torch import Tensor, nn

from archspec.kinds import pool_features as kinds
from compiler.build import Make
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.PoolFeatures)
class PoolFeatures(nn.Module):
    def __init__(self, spec: kinds.PoolFeatures, make: Make) -> None:
        super().__init__()
        self.size, self.how = spec.size, spec.how

    def forward(self, x: Tokens) -> Tensor:
        groups = x.features.unflatten(-1, (-1, self.size))
        return groups.amax(-1) if self.how == "max" else groups.mean(-1)
