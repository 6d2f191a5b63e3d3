"""Block-diagonal matrices (schema in archspec.kinds.block_diagonal)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import block_diagonal as kinds
from archspec.streams import Stream
from compiler.build import weight
from compiler.registry import builds


@builds(kinds.BlockDiagonal)
class BlockDiagonal(nn.Module):
    """A weight of ``[groups, inputs / groups, outputs / groups]``."""

    def __init__(self, spec: kinds.BlockDiagonal, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.groups = spec.groups
        self.weight = weight(spec.groups, matrix.inputs // spec.groups, matrix.outputs // spec.groups)
        self.bias = weight(matrix.outputs) if matrix.bias else None
        self.initial = {"weight": ("scheme",)}
        self.writes = matrix.init == "out"

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...gi,gio->...go", x.unflatten(-1, (self.groups, -1)), self.weight).flatten(-2)
        return y if self.bias is None else y + self.bias
