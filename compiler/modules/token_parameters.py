"""Attention over parameters (schema in archspec.kinds.token_parameters)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import token_parameters as kinds
from archspec.streams import Stream
from compiler.build import weight
from compiler.registry import builds


@builds(kinds.TokenParameters)
class TokenParameters(nn.Module):
    """Keys ``[count, inputs]``, values ``[outputs, count]``."""

    def __init__(self, spec: kinds.TokenParameters, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.normalize, self.scale = spec.normalize, spec.scaled
        self.keys, self.values = weight(spec.count, matrix.inputs), weight(matrix.outputs, spec.count)
        self.bias = weight(matrix.outputs) if matrix.bias else None
        self.writes = matrix.init == "out"

    def forward(self, x: Tensor) -> Tensor:
        scores = F.linear(x, self.keys)
        if self.normalize == "l2_gelu":
            weights = F.gelu(F.normalize(scores, dim=-1) * self.scale)
        elif self.normalize == "gelu_l2":
            weights = F.normalize(F.gelu(scores), dim=-1) * self.scale
        else:
            weights = scores.softmax(-1) * self.scale**2
        return F.linear(weights, self.values, self.bias)
