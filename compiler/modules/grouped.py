"""Rows that each meet one of several weight matrices: the arithmetic of experts and of weights by label.

Rows are sorted by group and multiplied group by group (Gale et al. 2022, "MegaBlocks", arXiv 2211.15841). All shapes
are static, so the same form traces, exports and runs on the meta device, where groups count as equally full.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.kind import Matrix
from compiler.build import weight
from compiler.registry import Leaf


class Sorting(Leaf):
    """Sorts rows ``[rows, width]`` by their group ``[rows]``; gives rows, their old places and the groups' ends."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        order = group.argsort(stable=True)
        values = torch.arange(self.groups, device=group.device)
        counts = (group[:, None] == values).sum(0)
        return x[order], order, counts.cumsum(0).to(torch.int32)


class GroupedLinear(Leaf):
    """``rows @ weight[group]`` for rows sorted by group, ``[rows, inputs]`` to ``[rows, outputs]``."""

    def __init__(self, groups: int, matrix: Matrix) -> None:
        super().__init__()
        self.weight = weight(groups, matrix.inputs, matrix.outputs)
        self.bias = weight(groups, matrix.outputs) if matrix.bias else None
        self.writes = matrix.init == "out"
        self.initial = {"weight": ("scheme",), "bias": 0.0}

    def forward(self, rows: Tensor, ends: Tensor) -> Tensor:
        if rows.is_meta:
            out = even(rows, self.weight)
        elif rows.dtype == torch.float64:  # has no grouped product
            starts = [0, *ends.tolist()]
            parts = zip(starts, starts[1:], self.weight, strict=False)
            out = torch.cat([rows[start:stop] @ matrix for start, stop, matrix in parts])
        else:
            out = F.grouped_mm(rows, self.weight, offs=ends)
        if self.bias is None:
            return out
        places = torch.arange(rows.shape[0], device=rows.device)
        return out + self.bias[(places[:, None] >= ends).sum(1)]


def even(rows: Tensor, weights: Tensor) -> Tensor:
    """The same amount of arithmetic where no values say how rows are spread: as evenly as they can be."""
    groups = min(weights.shape[0], rows.shape[0])
    full = rows.shape[0] // groups * groups
    out = torch.bmm(rows[:full].unflatten(0, (groups, -1)), weights[:groups]).flatten(0, 1)
    return out if full == rows.shape[0] else torch.cat((out, rows[full:] @ weights[0]))
