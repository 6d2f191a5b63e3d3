"""Monarch matrices (schema in archspec.kinds.monarch)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import monarch as kinds
from archspec.streams import Stream
from compiler.build import weight
from compiler.registry import builds


@builds(kinds.Monarch)
class Monarch(nn.Module):
    """``first [blocks, inputs / blocks, inner / blocks]``, ``second [blocks, inner / blocks, outputs / blocks]``."""

    def __init__(self, spec: kinds.Monarch, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.blocks = spec.blocks
        inputs, outputs = matrix.inputs // spec.blocks, matrix.outputs // spec.blocks
        inner = min(inputs, outputs)
        self.first, self.second = weight(spec.blocks, inputs, inner), weight(spec.blocks, inner, outputs)
        self.bias = weight(matrix.outputs) if matrix.bias else None
        self.initial = {"first": ("normal", 1 / math.sqrt(inputs)), "second": ("scheme",)}
        self.writes = matrix.init == "out"

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...gi,gij->...jg", x.unflatten(-1, (self.blocks, -1)), self.first)
        y = y.flatten(-2).unflatten(-1, (self.blocks, -1))
        y = torch.einsum("...gj,gjo->...og", y, self.second).flatten(-2)
        return y if self.bias is None else y + self.bias
