"""Matrices with an identity beside them (schema in archspec.kinds.identity)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import identity as kinds
from archspec.streams import Stream
from compiler.build import plain_linear, weight
from compiler.registry import builds


@builds(kinds.IdentityBeside)
class IdentityBeside(nn.Module):
    def __init__(self, spec: kinds.IdentityBeside, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.heads, self.inner, self.out = spec.heads, spec.inner(matrix), matrix.outputs < matrix.inputs
        inner = self.inner * spec.heads
        sizes = (inner, matrix.outputs) if self.out else (matrix.inputs, inner)
        self.linear = plain_linear(Matrix(*sizes, matrix.bias, matrix.init))
        self.gain = weight(spec.heads) if spec.learned else None
        self.initial = {"gain": 0.0}

    def forward(self, x: Tensor) -> Tensor:
        if self.out:
            parts = x.unflatten(-1, (self.heads, -1)).split((self.inner, self.linear.out_features), dim=-1)
            beside = parts[1].sum(-2) if self.gain is None else (parts[1] * self.gain[:, None]).sum(-2)
            return self.linear(parts[0].flatten(-2)) + beside
        made = self.linear(x).unflatten(-1, (self.heads, -1))
        each = x.unsqueeze(-2)
        beside = each.repeat_interleave(self.heads, dim=-2) if self.gain is None else each * self.gain[:, None]
        return torch.cat((made, beside), dim=-1).flatten(-2)
