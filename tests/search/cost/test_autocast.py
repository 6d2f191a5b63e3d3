"""Casts that are added to a table, against those that torch makes under autocast on a CPU."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from search.cost.autocast import CASTS, autocast
from search.cost.block import flops
from search.cost.meter import measure_block


class Casts(TorchDispatchMode):
    """Counts casts by how many numbers they cast."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default:
            self.counts[args[0].numel()] += 1
        return func(*args, **(kwargs or {}))


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 11), nn.GELU(), nn.Linear(11, 13, bias=False), nn.Linear(13, 5))


def test_casts_are_those_of_torch() -> None:
    x = torch.randn(3, 2, 7)
    with Casts() as casts, torch.autocast("cpu", torch.bfloat16):
        model()(x)
    casts.counts[x.numel()] -= 1  # of the input, which a model in the middle of others is given in low precision
    low = measure_block(model().to("meta", torch.bfloat16), [x.to("meta", torch.bfloat16)], train=False)
    table = autocast(low.inference)
    added = Counter({row.written // 2: row.count for row in table if row.name == CASTS})
    assert added == +casts.counts
    assert all(row.read == 2 * row.written and row.weights == row.read for row in table if row.name == CASTS)
    assert flops(table) == flops(low.inference)


def test_products_of_activations_are_not_cast() -> None:
    class Scores(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.transpose(-1, -2)

    x = torch.empty(3, 2, 7, dtype=torch.bfloat16, device="meta")
    low = measure_block(Scores(), [x], train=False).inference
    assert autocast(low) == low
