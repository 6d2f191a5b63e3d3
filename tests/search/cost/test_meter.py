"""The meter against torch's FLOP counter, against closed forms, and against what a CPU really allocates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search.cost import results
from search.cost.block import Operator, flops, merge
from search.cost.meter import measure_block
from search.cost.operators import FORMULAS

FLOAT = 4  # bytes


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, groups: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.groups, self.causal = heads, groups, causal
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * groups * width // heads, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(x).view(batch, length, 2 * self.groups, -1).transpose(1, 2).chunk(2, dim=1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=self.groups != self.heads)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class LearnedBias(nn.Module):
    """A mask with a gradient: no fused kernel on a CPU."""

    def __init__(self, heads: int, length: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(heads, length, length))

    def forward(self, q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, attn_mask=self.bias)


class Experts(nn.Module):
    def __init__(self, count: int, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(count, width, hidden))

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        return F.grouped_mm(x, self.up, offs=ends).relu()


def block(width: int = 32) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(width),
        Attention(width, 4, 2, causal=True),
        nn.Linear(width, 4 * width),
        nn.GELU(),
        nn.Dropout(0.1),
        nn.Linear(4 * width, width),
    )


def stream(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta", requires_grad=True)


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 32)), (2, 16, 32)),
    "attention": (lambda: Attention(32, 4, 4, causal=False), (2, 16, 32)),
    "causal attention": (lambda: Attention(32, 4, 4, causal=True), (2, 16, 32)),
    "grouped-query attention": (lambda: Attention(32, 4, 2, causal=True), (2, 16, 32)),
    "attention with a learned bias": (lambda: LearnedBias(4, 16), (2, 4, 16, 8)),
    "convolution": (lambda: nn.Conv2d(8, 16, 3, stride=2, padding=1), (2, 8, 12, 12)),
    "depthwise convolution": (lambda: nn.Conv1d(8, 8, 3, groups=8), (2, 8, 20)),
    "transposed convolution": (lambda: nn.ConvTranspose2d(8, 4, 2, stride=2), (2, 8, 6, 6)),
    "block": (block, (2, 16, 32)),
}


@pytest.mark.parametrize("name", MODULES)
def test_flops_equal_flop_counter(name: str) -> None:
    build, shape = MODULES[name]
    with torch.device("meta"):
        module = build()
    cost = measure_block(module, [stream(*shape)], train=True)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        result = module(stream(*shape))
    assert flops(cost.inference) == flops(cost.training, "forward") == counter.get_total_flops() > 0
    with counter:  # starts from zero again
        result.sum().backward()
    assert flops(cost.training, "backward") == counter.get_total_flops() > 0
    assert cost.unpriced == ()


def test_embedding_reads_only_its_rows() -> None:
    with torch.device("meta"):
        table = nn.Embedding(50_000, 64)
        tokens = torch.zeros(2, 8, dtype=torch.int64)
    cost = measure_block(table, {"input": tokens}, train=True)
    (row,) = cost.inference
    assert (row.flops, row.written) == (0, 2 * 8 * 64 * FLOAT)
    assert row.read == row.written + 2 * 8 * 8
    assert row.weights == row.written
    assert cost.flow.saved == (0,)
    assert cost.peak_training == 2 * 8 * 64 * FLOAT  # the gradient of the table belongs to the weights


def test_depthwise_convolution_costs_its_groups_only() -> None:
    """torch's own formula for the weight's gradient charges every channel for all."""
    convolution = nn.Conv1d(8, 8, 3, groups=8, bias=False, device="meta")
    cost = measure_block(convolution, [stream(2, 8, 20)], train=True)
    once = 2 * (2 * 18) * 8 * 3
    assert flops(cost.training, "forward") == once
    assert flops(cost.training, "backward") == 2 * once


def test_attention_of_a_real_cpu_run_costs_the_same() -> None:
    module = Attention(32, 4, 4, causal=True)
    real = measure_block(module, [torch.randn(2, 16, 32, requires_grad=True)], train=True)
    meta = measure_block(module.to("meta"), [stream(2, 16, 32)], train=True)
    assert flops(real.training, "forward") == flops(meta.training, "forward")
    assert flops(real.training, "backward") == flops(meta.training, "backward")


def test_attention_with_values_of_another_width() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    class Attend(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attend(q, k, v)

    q, k, v = stream(2, 4, 8, 24), stream(2, 4, 12, 24), stream(2, 4, 12, 16)
    cost = measure_block(Attend(), [q, k, v], train=True)
    assert flops(cost.training, "forward") == 2 * 2 * 4 * 8 * 12 * (24 + 16)
    assert flops(cost.training, "backward") == 2 * flops(cost.training, "forward")
    assert cost.peak_inference == 2 * 4 * 8 * 16 * FLOAT  # no scores in memory
    k.requires_grad_(False)
    q.requires_grad_(False)
    only_values = measure_block(Attend(), [q, k, v], train=True)
    assert flops(only_values.training, "backward") == 2 * 2 * 4 * 8 * 12 * 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_products_are_counted(dtype: torch.dtype) -> None:
    with torch.device("meta"):
        experts = Experts(4, 16, 32).to(dtype)
        rows = torch.empty(24, 16, dtype=dtype, requires_grad=True)
        ends = torch.zeros(4, dtype=torch.int32)
    cost = measure_block(experts, [rows, ends], train=True)
    assert flops(cost.inference) == 2 * 24 * 16 * 32
    assert flops(cost.training) == 3 * flops(cost.inference)
    assert cost.unpriced == ()


def test_grouped_result_has_the_shape_of_the_real_one() -> None:
    experts = Experts(4, 16, 32)
    rows, ends = torch.randn(24, 16), torch.tensor([4, 8, 20, 24], dtype=torch.int32)
    real = measure_block(experts, [rows, ends], train=False)
    meta = measure_block(experts.to("meta"), [rows.to("meta"), ends.to("meta")], train=False)
    assert flops(real.inference) == flops(meta.inference)
    assert real.peak_inference == meta.peak_inference


def test_unknown_operators_are_named_and_priced_by_bytes() -> None:
    class Exponential(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.matrix_exp(x)

    cost = measure_block(Exponential(), [stream(4, 4)], train=False)
    assert cost.unpriced == ("aten.linalg_matrix_exp",)
    row = next(row for row in cost.inference if not row.priced)
    assert (row.flops, row.read, row.written) == (0, 4 * 4 * FLOAT, 4 * 4 * FLOAT)


def test_a_fourier_transform_is_priced_by_its_length() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(torch.fft.fft(x), dim=0).real

    cost = measure_block(Spectrum(), [stream(4, 16)], train=False)
    assert cost.unpriced == () and {row.dtype for row in cost.inference if row.work != "view"} == {"float32"}
    assert flops(cost.inference) == 5 * 64 * 4 // 2 + 5 * 64 * 2  # half as much where the input is real


def test_views_move_nothing() -> None:
    class View(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(4, 8).transpose(0, 1)[1:].expand(2, 7, 4)

    cost = measure_block(View(), [stream(32)], train=False)
    (calls,) = cost.inference
    assert (calls.work, calls.count, calls.read + calls.written + calls.flops) == ("view", 4, 0)
    assert (cost.peak_inference, cost.saved) == (0, 0)


def test_an_expanded_tensor_is_read_once() -> None:
    class Add(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.expand(8, 16) + 1

    (row,) = (row for row in measure_block(Add(), [stream(16)], train=False).inference if row.work != "view")
    assert (row.read, row.written) == (16 * FLOAT, 8 * 16 * FLOAT)


def test_shapes_are_those_that_kernels_see() -> None:
    class Kernels(nn.Module):
        def forward(self, x: Tensor, image: Tensor, weight: Tensor) -> Tensor:
            heads = x.view(2, 6, 4, 8).transpose(1, 2)
            y = F.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
            z = torch.bmm(x, x.transpose(1, 2)) @ x[0, :, 0]
            return (
                y.sum() + z.sum() + F.conv2d(image, weight, stride=2, groups=2).sum() + (x @ x.new_empty(32, 5)).sum()
            )

    given = [stream(2, 6, 32), stream(3, 4, 9, 9), stream(10, 2, 3, 3)]
    table = measure_block(Kernels(), given, train=True).training
    shapes = {row.shape: row for row in table if row.work != "traffic"}
    assert {row.work for row in shapes.values()} == {"product", "attention", "convolution", "view"}
    assert {(8, 6, 6, 8, 1), (2, 6, 32, 6), (1, 12, 32, 5), (1, 1, 6, 12), (2, 3 * 16, 18, 5)} <= shapes.keys()
    for shape, row in shapes.items():
        if row.phase == "forward" and row.work in ("product", "convolution"):
            assert row.flops == 2 * math.prod(shape)


def test_peak_of_a_chain_is_its_widest_pair() -> None:
    widths = [8, 64, 16, 128, 8]
    chain = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:], strict=False)))
    cost = measure_block(chain.to("meta"), [stream(10, 8)], train=True)
    assert cost.peak_inference == 10 * (16 + 128) * FLOAT
    assert cost.saved == 10 * (64 + 16 + 128) * FLOAT  # what the later products need for their weights' gradients
    assert cost.flow.saved == (0,)
    # at the start of backward: all that is saved, the gradient that comes in and the one that goes out of the last
    assert cost.peak_training == cost.saved + 10 * (8 + 128) * FLOAT


def test_how_tensors_hang_together() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8, bias=False)

        def forward(self, x: Tensor, mask: Tensor) -> Any:
            return x, self.linear(x).exp(), self.linear.weight.sum(0), mask[1:]

    mask = torch.empty(10, device="meta")
    cost = measure_block(Two().to("meta"), [stream(10, 8), mask], train=True)
    same, own, weight, part = cost.flow.training
    assert (same.storage, part.storage) == (~0, ~1) and own.storage != weight.storage
    assert [one.graded for one in cost.flow.training] == [True, True, True, False]
    assert (own.saved, weight.saved, own.size) == (True, False, 10 * 8 * FLOAT)
    assert cost.flow.saved == (0,) and cost.flow.reached == (0,)
    assert cost.peak_training == max(cost.flow.peak_forward, cost.flow.peak_backward)
    assert measure_block(Two().to("meta"), [stream(10, 8), mask], train=True, seeds=(2,)).flow.reached == ()


def test_equal_rows_are_merged() -> None:
    row = Operator("aten.mm", "forward", "float32", 2, 3, 4, 0)
    (merged,) = merge([row, row, row])
    assert merged.count == 3
    assert merge([merged, row])[0].count == 4


def test_a_remembered_result_changes_nothing() -> None:
    with torch.device("meta"):
        module = block()
    results._remembered.clear()
    cold = measure_block(module, [stream(2, 16, 32)], train=True)
    assert measure_block(module, [stream(2, 16, 32)], train=True) == cold


def test_the_module_is_left_as_found() -> None:
    with torch.device("meta"):
        module = block()
    module[0].eval()
    gradient = torch.empty(32, device="meta")
    module[0].weight.grad = gradient  # type: ignore[assignment]
    x = stream(2, 16, 32)
    measure_block(module, [x], train=True)
    assert [part.training for part in module] == [False, True, True, True, True, True]
    assert module[0].weight.grad is gradient
    assert all(p.grad is None for p in module[1].parameters()) and x.grad is None


def test_dropout_costs_in_training_only() -> None:
    cost = measure_block(nn.Dropout(0.5).to("meta"), [stream(8, 8)], train=True)
    assert cost.inference == ()
    assert cost.training and cost.saved
