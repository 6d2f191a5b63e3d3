"""Conditional layer normalisation (schema in archspec.kinds.conditional_layer_norm)."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kinds import conditional_layer_norm as kinds
from compiler.build import Make, project
from compiler.registry import builds
from compiler.tokens import Tokens


@builds(kinds.ConditionalLayerNorm)
class ConditionalLayerNorm(nn.Module):
    def __init__(self, spec: kinds.ConditionalLayerNorm, make: Make) -> None:
        super().__init__()
        self.condition, self.eps, self.width = make.node.streams["condition"], spec.eps, make.stream.width
        self.one = bool(make.stream.spans) and not make.node.outer_types[self.condition].spans
        self.scale, self.shift = make.linear("scale"), make.linear("shift")

    def forward(self, x: Tokens, outer: Mapping[str, Tokens]) -> Tensor:
        read = outer[self.condition]
        scale, shift = (project(matrix, read.features, read) for matrix in (self.scale, self.shift))
        if self.one:  # a vector goes to every token
            scale, shift = scale.unsqueeze(1), shift.unsqueeze(1)
        return F.layer_norm(x.features, (self.width,), None, None, self.eps) * (1 + scale) + shift
