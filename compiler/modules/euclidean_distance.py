"""Distances from a point (schema in archspec.kinds.euclidean_distance)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kinds import euclidean_distance as kinds
from compiler.build import Make
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.EuclideanDistance)
class EuclideanDistance(nn.Module):
    def __init__(self, spec: kinds.EuclideanDistance, make: Make) -> None:
        super().__init__()
        self.one = bool(make.stream.spans) and not make.node.types[1].spans

    def forward(self, x: Tokens, point: Tokens) -> Tensor:
        there = point.features.unsqueeze(1) if self.one else point.features
        return torch.linalg.vector_norm(x.features - there, dim=-1, keepdim=True)
