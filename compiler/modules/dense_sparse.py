"""Dense times sparse matrices (schema in archspec.kinds.dense_sparse)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import dense_sparse as kinds
from archspec.streams import Stream
from compiler.build import weight
from compiler.registry import builds


@builds(kinds.DenseSparse)
class DenseSparse(nn.Module):
    """``dense [outputs, rank]``, ``sparse [rank, inputs]`` in full."""

    def __init__(self, spec: kinds.DenseSparse, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.nonzeros = spec.nonzeros
        self.dense, self.sparse = weight(matrix.outputs, spec.rank), weight(spec.rank, matrix.inputs)
        self.bias = weight(matrix.outputs) if matrix.bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, support(self.sparse, self.nonzeros)), self.dense, self.bias)


def support(full: Tensor, nonzeros: int) -> Tensor:
    """The largest numbers of each column, zeros for the others; gradients pass as if all were kept."""
    kept = torch.zeros_like(full).scatter(0, full.abs().topk(nonzeros, dim=0).indices, 1.0)
    return full * kept + (full - full.detach()) * (1 - kept)
