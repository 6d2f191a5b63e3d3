"""What `torch.autocast` adds to a forward pass: weights stay in float32 and are cast for every product that uses them.

A table priced in the low precision already has the products right. What it lacks is one operator more for each matrix
and each bias, which together can be a fifth of a small model's operators. Norms, and what is added to their float32
results, are left in the low precision: their extra bytes are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from search.cost.block import Operator, Table

FULL = torch.float32.itemsize
CASTS = "aten._to_copy"


def autocast(table: Iterable[Operator]) -> Table:
    """A table of low precision as it is under autocast, with a cast of each matrix and bias before its product."""
    return tuple(one for row in table for one in (*_casts(row), row))


def _casts(row: Operator) -> Iterator[Operator]:
    if row.work != "product" or not row.weights:
        return
    size = getattr(torch, row.dtype).itemsize
    bias = row.shape[0] * row.shape[3] * size if row.name in ("aten.addmm", "aten.baddbmm") else 0
    for written in (row.weights - bias, bias):
        if written:
            read = written // size * FULL
            yield replace(
                row, name=CASTS, work="traffic", shape=(), flops=0, read=read, written=written, weights=read,
            )  # fmt: skip
