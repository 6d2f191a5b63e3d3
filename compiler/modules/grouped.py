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
from compiler.registry import Keeper, Leaf


class Sorting(Leaf):
    """Sorts rows ``[rows, width]`` by their groups, ``[rows]`` or ``[rows, k]`` of each, which repeats a row k times.

    Gives the sorted rows, the place of each among all, and the groups' ends.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        each = group.shape[1] if group.ndim == 2 else 1
        group, order = group.flatten().sort(stable=True)
        values = torch.arange(self.groups, device=group.device)
        ends = torch.searchsorted(group, values, right=True, out_int32=True)
        return x.index_select(0, order if each == 1 else order // each), order, ends


class GroupedLinear(Keeper):
    """``rows @ weight[group]`` for rows sorted by group, ``[rows, inputs]`` to ``[rows, outputs]``.

    Args:
        groups: how many there are of each matrix.
        matrices: matrices of the same inputs; one product gives them all, side by side.
        roles: what each matrix is called.
    """

    def __init__(self, groups: int, *matrices: Matrix, roles: tuple[str, ...] | None = None) -> None:
        super().__init__()
        first, self.parts = matrices[0], [matrix.outputs for matrix in matrices]
        if roles is not None:
            self.roles = roles
        self.weight = weight(groups, first.inputs, sum(self.parts))
        self.bias = weight(groups, sum(self.parts)) if first.bias else None
        self.writes = first.init == "out"
        self.initial = {"weight": ("scheme",), "bias": 0.0}
        self.static = False

    def forward(self, rows: Tensor, ends: Tensor) -> Tensor:
        if rows.is_meta:
            out = even(rows, self.weight)
        elif self.static:
            out = masked(rows, self.weight, groups_of(rows, ends))
        elif self.few(rows) or not self.aligned(rows):
            out = each(rows, self.weight, ends.tolist())
        else:
            out = F.grouped_mm(rows, self.weight, offs=ends)
        return out if self.bias is None else out + self.bias.index_select(0, groups_of(rows, ends))

    def few(self, rows: Tensor) -> bool:
        """Whether some groups are sure to be left out."""
        return self.decoding is not None and rows.shape[0] <= self.weight.shape[0]

    def aligned(self, rows: Tensor) -> bool:
        """Whether there is a grouped product of these numbers: it reads 16 bytes at a time."""
        size = rows.element_size()
        return rows.dtype != torch.float64 and not any(length * size % 16 for length in self.weight.shape[1:])


def groups_of(rows: Tensor, ends: Tensor) -> Tensor:
    """The group of each row, ``[rows]``."""
    places = torch.arange(rows.shape[0], dtype=ends.dtype, device=rows.device)
    return torch.searchsorted(ends, places, right=True, out_int32=True)


def unsorted(rows: Tensor, order: Tensor) -> Tensor:
    """Sorted rows back at their places."""
    return torch.empty_like(rows).index_copy(0, order, rows)


def summed(rows: Tensor, weights: Tensor) -> Tensor:
    """``[rows, width]`` from k of each with weights ``[rows, k]``; one product, so that no product of all is stored."""
    return torch.bmm(weights[:, None], rows.unflatten(0, (-1, weights.shape[1]))).squeeze(1)


def masked(rows: Tensor, weights: Tensor, group: Tensor) -> Tensor:
    """All rows through all matrices, each keeping what its own says: nothing depends on the data but values."""
    out = rows.new_zeros(rows.shape[0], weights.shape[2])
    for number, matrix in enumerate(weights.unbind()):
        out = out + (group == number)[:, None] * (rows @ matrix)
    return out


def each(rows: Tensor, weights: Tensor, ends: list[int]) -> Tensor:
    """One product for each group that has rows; the others' weights are not looked at."""
    spans = zip([0, *ends], ends, strict=False)
    parts = [rows[start:stop] @ weights[group] for group, (start, stop) in enumerate(spans) if stop > start]
    return torch.cat(parts) if parts else rows.new_zeros(0, weights.shape[2])


def even(rows: Tensor, weights: Tensor) -> Tensor:
    """The same amount of arithmetic where no values say how rows are spread: as evenly as they can be."""
    groups = min(weights.shape[0], rows.shape[0])
    full = rows.shape[0] // groups * groups
    out = torch.bmm(rows[:full].unflatten(0, (groups, -1)), weights[:groups]).flatten(0, 1)
    return out if full == rows.shape[0] else torch.cat((out, rows[full:] @ weights[0]))
