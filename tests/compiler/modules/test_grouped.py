"""Rows that each meet one of several matrices, against a loop."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from archspec.kind import Matrix
from compiler.modules.grouped import GroupedLinear, Sorting, even

COUNTS = {
    "even": [4, 4, 4, 4],
    "uneven": [1, 9, 2, 4],
    "empty ones": [0, 10, 0, 6],
    "all in the last": [0, 0, 0, 16],
    "all in the first": [16, 0, 0, 0],
}


def linear(groups: int, *, bias: bool = False, dtype: torch.dtype = torch.float32) -> GroupedLinear:
    made = GroupedLinear(groups, Matrix(16, 24, bias)).to_empty(device="cpu").to(dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made


def loop(rows: Tensor, group: Tensor, made: GroupedLinear) -> Tensor:
    out = [
        row @ made.weight[g] + (made.bias[g] if made.bias is not None else 0)
        for row, g in zip(rows, group, strict=True)
    ]
    return torch.stack(out)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", COUNTS)
def test_forward_and_backward_are_those_of_a_loop(name: str, bias: bool) -> None:
    made = linear(4, bias=bias)
    group = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS[name]))
    rows = torch.randn(16, 16, requires_grad=True)
    ends = torch.tensor(COUNTS[name]).cumsum(0).to(torch.int32)
    found, expected = made(rows, ends), loop(rows, group, made)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    weight = torch.randn_like(found)
    wanted = torch.autograd.grad((expected * weight).sum(), [rows, *made.parameters()])
    for a, b in zip(torch.autograd.grad((found * weight).sum(), [rows, *made.parameters()]), wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    made = linear(4, bias=True, dtype=dtype)
    group = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS["uneven"]))
    rows = torch.randn(16, 16, dtype=dtype)
    found = made(rows, torch.tensor(COUNTS["uneven"]).cumsum(0).to(torch.int32))
    assert found.dtype == dtype
    torch.testing.assert_close(found, loop(rows, group, made), atol=0.1, rtol=0.02)


def test_sorting_keeps_the_order_inside_a_group() -> None:
    group = torch.tensor([2, 0, 3, 0, 2, 2, 0])
    rows = torch.arange(7.0)[:, None]
    found, order, ends = Sorting(5)(rows, group)
    assert order.tolist() == [1, 3, 6, 0, 4, 5, 2]
    assert torch.equal(found, rows[order])
    assert ends.tolist() == [3, 3, 6, 7, 7]
    assert ends.dtype == torch.int32


@pytest.mark.parametrize(("rows", "groups"), [(16, 4), (17, 4), (3, 8), (1, 1), (8, 8)])
def test_on_the_meta_device_every_row_meets_one_matrix(rows: int, groups: int) -> None:
    with FlopCounterMode(display=False) as counter:
        out = even(torch.empty(rows, 16, device="meta"), torch.empty(groups, 16, 24, device="meta"))
    assert out.shape == (rows, 24)
    assert counter.get_total_flops() == 2 * rows * 16 * 24


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_widths_may_be_any(dtype: torch.dtype) -> None:
    """Grouped products need rows of whole 16 bytes; others are multiplied group by group."""
    made = GroupedLinear(4, Matrix(14, 7, True)).to_empty(device="cpu").to(dtype)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    group = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS["uneven"]))
    rows = torch.randn(16, 14, dtype=dtype, requires_grad=True)
    found = made(rows, torch.tensor(COUNTS["uneven"]).cumsum(0).to(torch.int32))
    expected = loop(rows, group, made)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found.sum(), [rows, *made.parameters()]),
                    torch.autograd.grad(expected.sum(), [rows, *made.parameters()]), strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, atol=1e-4 if dtype == torch.float32 else 0.1, rtol=0.02)
