"""Tables in the place of a matrix (schema in archspec.kinds.hash_memory)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import hash_memory as kinds
from archspec.streams import Stream
from compiler.build import weight
from compiler.registry import Leaf, builds


@builds(kinds.HashMemory)
class HashMemory(nn.Module):
    """``tables [tables, 2^bits, outputs]``."""

    def __init__(self, spec: kinds.HashMemory, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.bits = spec.bits
        self.tables = weight(matrix.inputs // spec.bits, 2**spec.bits, matrix.outputs)
        self.bias = weight(matrix.outputs) if matrix.bias else None
        self.initial = {"tables": ("normal", 0.02)}
        self.look_up = LookUp()

    def forward(self, x: Tensor) -> Tensor:
        z = x.unflatten(-1, (-1, self.bits))
        size = z.abs()
        share = size.sum(-1) * torch.sigmoid(2 * size).prod(-1)
        y: Tensor = self.look_up(z, share, self.tables)
        return y if self.bias is None else y + self.bias


class LookUp(Leaf):
    """For ``z [..., tables, bits]``: the row of each table that the signs name, weighed and summed."""

    def forward(self, z: Tensor, share: Tensor, tables: Tensor) -> Tensor:
        count, rows, _ = tables.shape
        powers = 2 ** torch.arange(z.shape[-1], device=z.device)
        first = rows * torch.arange(count, device=z.device)
        read = F.embedding(((z >= 0) * powers).sum(-1) + first, tables.flatten(0, 1))
        out: Tensor = (share[..., None, :] @ read)[..., 0, :]
        return out
