"""Matrices that are mixtures of shared ones (schema in archspec.kinds.shared_atoms)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import shared_atoms as kinds
from archspec.streams import Stream
from compiler.build import weight
from compiler.registry import builds


@builds(kinds.SharedAtoms)
class SharedAtoms(nn.Module):
    """A weight of ``[atoms, inputs, outputs]``."""

    def __init__(self, spec: kinds.SharedAtoms, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.weight = weight(spec.count, matrix.inputs, matrix.outputs)
        self.initial = {"weight": ("scheme",)}
        self.writes = matrix.init == "out"
        self.mine = Mine(spec.count, matrix)

    def forward(self, x: Tensor) -> Tensor:
        mixed = (self.mine.mixture @ self.weight.flatten(1)).view(self.weight.shape[1:])
        return F.linear(x, mixed.T, self.mine.bias)


class Mine(nn.Module):
    """What each user has of its own."""

    def __init__(self, atoms: int, matrix: Matrix) -> None:
        super().__init__()
        self.own = True
        self.mixture = weight(atoms)
        self.bias = weight(matrix.outputs) if matrix.bias else None
        self.initial = {"mixture": ("normal", 1 / math.sqrt(atoms)), "bias": 0.0}
