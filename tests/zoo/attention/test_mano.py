"""MANO. Colagrande et al. 2025, arXiv 2507.02748."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from search.cost.price import price
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("mano")

NAME = "attention/mano"
X = torch.randn(2, 64, 2, generator=torch.Generator().manual_seed(0))


def levels(count: int) -> dict[str, Any]:
    """The block with so many levels."""
    graph: list[dict[str, Any]] = [{"name": "near", "from": "x", "kind": "attend"}]
    merge = {"kind": "patch_merging", "factor": 2, "width": "width", "norm": "absent"}
    for level in range(1, count):
        below = f"down_{level - 1}" if level > 1 else "x"
        graph.append({"name": f"down_{level}", "from": below} | ({"weights": "down_1"} if level > 1 else merge))
        graph.append({"name": f"at_{level}", "from": f"down_{level}", "weights": "near"})
    coarse = last = f"at_{count - 1}"
    for number, level in enumerate(range(count - 2, -1, -1)):
        node = {"name": f"sum_{level}", "from": [f"at_{level}" if level else "near", coarse], "kind": "residual",
                "factor": f"1 / {number + 1}", "body": "expand"}  # fmt: skip
        graph.append(node | ({"weights": {"of": last}} if number else {}))
        last, coarse = (last if number else f"sum_{level}"), f"sum_{level}"
    return {"inputs": ["x"], "graph": graph, "outputs": coarse if count > 1 else "near"}


def of_size(points: int, axes: int = 1) -> dict[str, Any]:
    """The changes for a grid of so many points along each axis, its levels down to one window."""
    names = ("row", "column")[:axes] if axes > 1 else ("point",)
    stream = {"axes": dict.fromkeys(names, points), "width": 2}
    return {"interface__inputs__x": stream, "blocks__multipole": levels(int(math.log2(points / 8)) + 1)}


def by_levels(block: Any, x: Tensor, count: int) -> Tensor:
    """Level by level, window by window."""
    norm, mix = block.near.body.layer_norm, block.near.body.attention

    def attend(x: Tensor) -> Tensor:
        told = []
        for part in x.split(8, dim=1):
            part = F.layer_norm(part, (32,), norm.weight, norm.bias)
            q, k, v = ((part @ w.T).unflatten(-1, (4, 8)) for w in mix.qkv.weight.chunk(3))
            weights = (torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5).softmax(-1)
            read = torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)
            told.append(read @ mix.out.weight.T + mix.out.bias)
        return torch.cat(told, 1)

    said = [attend(x)]
    for _ in range(count - 1):
        x = torch.cat((x[:, ::2], x[:, 1::2]), dim=-1) @ block.halved.linear.weight.T
        said.append(attend(x))
    total = said.pop()
    for number, fine in enumerate(reversed(said)):
        wide = total @ block.sum_quarter.body.patch_expanding.linear.weight.T
        total = fine + torch.stack(wide.chunk(2, dim=-1), dim=2).flatten(1, 2) / (number + 1)
    return total


@torch.no_grad()
def test_equals_a_loop_over_levels() -> None:
    model = random(build(NAME, interface__inputs__x__width=32, graph=[{"name": "all_", "kind": "multipole"}]))
    x = torch.randn(2, 64, 32, generator=torch.Generator().manual_seed(0))
    expected = by_levels(model.all_.body, x, 4)
    assert expected.std() > 0.1
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


def test_parameters_do_not_grow_with_the_levels() -> None:
    counts = {parameters(build(NAME, blocks__multipole=levels(count))) for count in (2, 3, 4)}
    assert counts == {parameters(build(NAME))}
    assert spec(NAME, blocks__multipole=levels(4)).structure == spec(NAME).structure


@pytest.mark.parametrize("axes", [1, 2])
def test_cost_grows_with_the_number_of_points(axes: int) -> None:
    """As many levels as it takes; half of the points, or a quarter, on each."""
    sizes = (32, 64, 128, 256)
    flops = [price(spec(NAME, **of_size(points, axes)), device="l4").forward for points in sizes]
    powers = [math.log2(b / a) / axes for a, b in zip(flops, flops[1:], strict=False)]
    assert all(0.99 < power < 1.08 for power in powers)  # each level halves what the next one adds
    assert powers[2] < 1.02


def test_every_output_is_reached_by_every_input() -> None:
    x = X[:1].clone().requires_grad_()
    for layers in (1, 2):
        model = random(build(NAME, graph__layers__times=layers))
        for at in (0, 31, 63):
            (grad,) = torch.autograd.grad(model(x)[0, at, 0], x)
            assert (grad[0].abs().sum(-1) > 1e-9).all()
    windows = random(build(NAME, blocks__multipole=levels(1)))
    (grad,) = torch.autograd.grad(windows(x)[0, 0, 0], x)
    assert (grad[0].abs().sum(-1) > 0).tolist() == [True] * 8 + [False] * 56


def test_points_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match="point 60 does not divide into groups of 8"):
        spec(NAME, interface__inputs__x__axes__point=60)
    with pytest.raises(SpecError, match="does not divide"):
        spec(NAME, interface__inputs__x__axes__point=24)
