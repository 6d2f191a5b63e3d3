"""MemoryFormer. Ding et al. 2024, arXiv 2411.12992."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.generate import generate
from compiler.logical import logical
from compiler.model import compile
from search.cost.price import price
from tests.zoo.published import build, random, spec

pytestmark = pytest.mark.system("memoryformer")
NAME = "channel/memoryformer"
TOKENS = torch.arange(24).reshape(2, 12) * 7 % 256


def one(bits: int, inputs: int = 12, outputs: int = 5) -> Any:
    return compile(loads(
        f"archspec: 1\ninterface: {{kind: backbone, inputs: {{x: {{axes: {{token: 6}}, width: {inputs}}}}}}}\n"
        f"graph: [{{name: a, kind: project, width: {outputs}, linear: {{kind: hash_memory, bits: {bits}}}}}]\n"
    ))  # fmt: skip


def naive(x: Tensor, tables: Tensor, bits: int) -> Tensor:
    """One vector: bit by bit, table by table."""
    out = torch.zeros(tables.shape[2])
    for number, table in enumerate(tables):
        z = x[number * bits : (number + 1) * bits].tolist()
        row = sum(2**bit for bit, value in enumerate(z) if value >= 0)
        share = sum(abs(value) for value in z) / math.prod(1 + math.exp(-2 * abs(value)) for value in z)
        out += share * table[row]
    return out


@torch.no_grad()
@pytest.mark.parametrize("bits", [1, 3, 4])
def test_equals_its_definition(bits: int) -> None:
    model: Any = random(one(bits))
    (tables,) = logical(model).values()
    assert tables.shape == (12 // bits, 2**bits, 5)
    x = torch.randn(2, 6, 12)
    expected = torch.stack([naive(token, tables, bits) for token in x.flatten(0, 1)]).unflatten(0, (2, 6))
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


def test_the_weight_is_that_of_the_nearest_corner() -> None:
    """The chance of the signs among all corners of the cube, by a softmax over these, times how like they are."""
    z = torch.randn(3)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    chance = (corners @ z).softmax(0).max()
    assert (z.abs().sum() * chance).item() == pytest.approx(
        sum(z.abs()).item() / math.prod(1 + math.exp(-2 * abs(value)) for value in z.tolist()), rel=1e-5
    )


def test_gradients_touch_only_the_rows_that_were_read() -> None:
    model: Any = one(4)
    x = torch.randn(1, 6, 12, requires_grad=True)
    model(x).square().sum().backward()
    (tables,) = model.parameters()
    touched = tables.grad.abs().sum(-1) > 0
    read = torch.zeros_like(touched)
    for token in x[0]:
        for number in range(3):
            read[number, sum(2**bit for bit in range(4) if token[4 * number + bit] >= 0)] = True
    assert torch.equal(touched, read)
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_flops_fall_and_memory_grows_with_the_bits() -> None:
    width = {"dims__width": 512}
    dense = price(spec(NAME, **width, defaults__linear="matrix"))
    hashed = {bits: price(spec(NAME, **width, dims__bits=bits)) for bits in (4, 8)}
    scores = 2 * 2 * 2 * 128**2 * 512 + 2 * 128 * 512 * 256  # what both have: attention itself and the head
    assert hashed[8].forward - scores < 0.2 * (dense.forward - scores)
    assert hashed[8].forward < hashed[4].forward
    tables = {bits: 2 * 5 * 512 * (512 // bits) * 2**bits for bits in (4, 8)}
    assert hashed[8].parameters - hashed[4].parameters == tables[8] - tables[4]
    assert hashed[8].weights > 5 * hashed[4].weights


def test_it_trains() -> None:
    torch.manual_seed(0)
    model: Any = build(NAME).train()
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(30):
        losses.append(F.cross_entropy(model(TOKENS)[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


@torch.no_grad()
def test_token_by_token_equals_all_at_once() -> None:
    model: Any = random(build(NAME))
    found = torch.tensor(generate(model, TOKENS[:, :4], tokens=8))
    whole = model(torch.cat((TOKENS[:, :4], found), 1)[:, :-1]).argmax(-1)[:, 3:]
    assert torch.equal(whole, found)


def test_tables_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match="64 inputs do not divide into tables of 5"):
        spec(NAME, dims__bits=5)
