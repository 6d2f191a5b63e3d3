"""Prices of memory against what a CPU really allocates, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from search.cost.meter import measure_block
from search.cost.update import update_peak
from tests.search.cost.test_meter import FLOAT, block


def allocated(run: Callable[[], Any]) -> tuple[int, int]:
    """Most bytes of CPU memory allocated at once during a call, and those that are left after it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        kept = run()
    assert record.profiler is not None and record.profiler.kineto_results is not None
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    size = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        size += event.nbytes()
        most = max(most, size)
    del kept
    return most, size


@pytest.mark.parametrize("name", ["mlp", "block"])
def test_memory_is_what_a_cpu_allocates(name: str) -> None:
    width, length = 128, 96
    module = block(width) if name == "block" else nn.Sequential(nn.Linear(width, 512), nn.GELU(), nn.Linear(512, width))
    x = torch.randn(4, length, width, requires_grad=True)
    with torch.device("meta"):
        cost = measure_block(module.to("meta"), [torch.empty_like(x, device="meta", requires_grad=True)], train=True)
    module = module.to_empty(device="cpu").train()
    for p in module.parameters():
        nn.init.normal_(p)

    def step() -> None:
        module(x).sum().backward()

    step()
    for tensor in (*module.parameters(), x):
        tensor.grad = None
    _, saved = allocated(lambda: module(x))
    output = x.numel() * FLOAT
    assert saved - output == pytest.approx(cost.saved, rel=0.02)
    peak, _ = allocated(step)
    own = sum(p.numel() for p in module.parameters()) * FLOAT
    assert cost.peak_training * 0.9 <= peak <= cost.peak_training + own
    with torch.no_grad():
        module.eval()
        peak, _ = allocated(lambda: module(x))
    assert peak == pytest.approx(cost.peak_inference, rel=0.05)


class Dropped(nn.Module):
    """Attention with dropout of its weights, or with values of another width than keys."""

    def __init__(self, dropout: float, width: int) -> None:
        super().__init__()
        self.dropout, self.width = dropout, width

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v[..., : self.width], dropout_p=self.dropout)


@pytest.mark.parametrize(("dropout", "width"), [(0.0, 32), (0.1, 32), (0.0, 16)])
def test_a_cpu_holds_the_scores_that_its_fused_kernel_cannot_spare(dropout: float, width: int) -> None:
    shape = (2, 4, 128, 32)
    given = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    meta = [torch.empty(shape, device="meta", requires_grad=True) for _ in given]
    module = Dropped(dropout, width)
    module(*given)
    _, saved = allocated(lambda: module(*given))
    cpu, gpu = (measure_block(module, meta, train=True, processor=on) for on in ("cpu", "gpu"))
    (output,) = cpu.flow.training
    assert saved == cpu.saved + (0 if output.saved else output.size)
    scores = 2 * 4 * 128 * 128 * FLOAT
    assert (gpu.saved < scores < cpu.saved) == (gpu != cpu) == (dropout > 0 or width < 32)


def test_the_optimizer_s_step_needs_what_is_priced() -> None:
    """One AdamW step of weights that have gradients."""
    parameters = [nn.Parameter(torch.randn(size)) for size in (1000, 30_000, 500)]
    optimizer = torch.optim.AdamW(parameters)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        peak, _ = allocated(optimizer.step)
    gradients = 31_500 * 4
    assert (
        update_peak(31_500, 30_000 * 4, 4) - gradients <= peak <= update_peak(31_500, 30_000 * 4, 4) - gradients + 5000
    )
