"""What a weight matrix may be (schemas in archspec.kinds.linear)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from archspec.kind import Matrix
from archspec.kinds import linear as kinds
from archspec.streams import Stream
from compiler.build import Make, main, plain_linear, weight
from compiler.modules.grouped import GroupedLinear, Sorting, unsorted
from compiler.registry import Leaf, builds
from compiler.tokens import Tokens


@builds(kinds.PlainMatrix)
class PlainMatrix(nn.Linear):
    def __new__(cls, spec: kinds.PlainMatrix, stream: Stream, matrix: Matrix) -> nn.Linear:  # type: ignore[misc]
        linear = plain_linear(matrix)
        linear.initial = {"weight": (spec.start, spec.gain)}  # type: ignore[assignment]
        return linear


@builds(kinds.LowRank)
class LowRank(nn.Module):
    def __init__(self, spec: kinds.LowRank, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.down = plain_linear(Matrix(matrix.inputs, spec.rank))
        self.up = plain_linear(Matrix(spec.rank, matrix.outputs, matrix.bias, matrix.init))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(self.down(x))
        return out


@builds(kinds.Lora)
class Lora(nn.Module):
    def __init__(self, spec: kinds.Lora, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.weight = weight(matrix.outputs, matrix.inputs)
        self.bias = weight(matrix.outputs) if matrix.bias else None
        self.writes = matrix.init == "out"
        self.down = plain_linear(Matrix(matrix.inputs, spec.rank))
        self.up = plain_linear(Matrix(spec.rank, matrix.outputs))
        self.up.initial = {"weight": 0.0}  # type: ignore[assignment]
        self.down.own = self.up.own = spec.own  # type: ignore[assignment]
        self.scale = spec.scale

    def forward(self, x: Tensor) -> Tensor:
        if self.scale == 0:
            return F.linear(x, self.weight, self.bias)
        beside = self.up(self.down(x))
        return F.linear(x, self.weight, self.bias) + (beside if self.scale == 1 else beside * self.scale)


@builds(kinds.NoMatrix)
class NoMatrix(nn.Module):
    def __init__(self, spec: kinds.NoMatrix, stream: Stream, matrix: Matrix) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class LabelLinear(nn.Module):
    """A weight matrix for each value of a label ``[batch, tokens]``; a token uses its own label's."""

    def __init__(self, spec: kinds.ByLabel, stream: Stream, matrix: Matrix) -> None:
        super().__init__()
        self.label = spec.label
        groups = spec.copies(stream)
        self.sorting = Sorting(groups)
        self.linear = GroupedLinear(groups, matrix)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        rows, order, ends = self.sorting(x.flatten(0, 1), labels.expand(x.shape[:2]).flatten())
        return unsorted(self.linear(rows, ends), order).unflatten(0, x.shape[:2])


@builds(kinds.ByLabel)
class ByLabel(nn.Module):
    """A copy of a body for each value of a label; each token keeps its own copy's output."""

    def __new__(cls, spec: kinds.ByLabel, *where: object) -> nn.Module:  # type: ignore[misc]
        return super().__new__(cls) if isinstance(where[0], Make) else LabelLinear(spec, *where)  # type: ignore[arg-type]

    def __init__(self, spec: kinds.ByLabel, make: Make) -> None:
        super().__init__()
        self.label = spec.label
        self.copies = nn.ModuleList(make.body(slot) for slot in make.slots("copies"))
        self.pick = Pick()

    def forward(self, x: Tokens, outer: Mapping[str, Tokens]) -> Tensor:
        outputs = [main(copy, x, outer=outer).features for copy in self.copies]
        out: Tensor = self.pick(x.labels[self.label], *outputs)
        return out


class Pick(Leaf):
    """Of several tensors ``[batch, tokens, …]``, for each token that of its label ``[batch, tokens]``."""

    def forward(self, labels: Tensor, *choices: Tensor) -> Tensor:
        labels = labels.reshape(*labels.shape, *[1] * (choices[0].ndim - 2))
        out = choices[0]
        for value, other in enumerate(choices[1:], 1):
            out = torch.where(labels == value, other, out)
        return out
