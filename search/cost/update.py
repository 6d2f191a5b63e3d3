"""What the optimizer's step costs: AdamW (Loshchilov and Hutter 2017, arXiv 1711.05101) as torch computes it.

It is metered once on a small weight: what it reads and writes grows with the weights in proportion. A CPU has operators
for each weight; a GPU runs each operator over many weights at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import torch

from search.cost.block import Operator, Table, merge

STATES = 8  # bytes of the two moments for each parameter
TEMPORARIES = 8  # bytes of what is computed for each parameter of one weight at a time
ARITHMETIC = 14  # pointwise FLOPs for each parameter
_SMALL = 1024


def update_peak(parameters: int, widest: int, size: int) -> int:
    """Bytes that the step needs beside weights and its states: all gradients, and its temporaries.

    Args:
        widest: bytes of the largest weight.
        size: bytes of a number of the weights.
    """
    return parameters * size + widest // size * TEMPORARIES


def update_table(weights: Iterable[int], dtype: torch.dtype, *, together: bool) -> Table:
    """The operators of a step.

    Args:
        weights: numbers in each weight.
        together: whether an operator takes them all at once.
    """
    sizes = list(weights)
    if together:
        sizes = [sum(sizes)]
    return merge(_scaled(row, size) for size in sizes if size for row in _of_a_small_weight(dtype))


def _scaled(row: Operator, size: int) -> Operator:
    return replace(row, read=row.read * size // _SMALL, written=row.written * size // _SMALL)


@cache
def _of_a_small_weight(dtype: torch.dtype) -> Table:
    from search.cost.meter import metered

    weight = torch.nn.Parameter(torch.empty(_SMALL, dtype=dtype, device="meta"))
    weight.grad = torch.empty_like(weight)
    optimizer = torch.optim.AdamW([weight], foreach=False)
    optimizer.step()  # makes its states
    return tuple(row for row in metered(optimizer.step) if row.read >= _SMALL)  # not those of its own count
