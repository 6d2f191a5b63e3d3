"""Linear transformers as in-context learners. Vladymyrov et al. 2024, arXiv 2402.14180."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from tests.zoo.attention.in_context import regression
from tests.zoo.published import build, parameters, random

pytestmark = pytest.mark.system("linear_tf_in_context")

NAME = "attention/linear_tf_in_context"
CONTEXT, QUERY, _ = regression(4, 20, 5, torch.Generator().manual_seed(0))


def heads(model: Any) -> list[Any]:
    """The heads, layer after layer."""
    return [module for name, module in model.named_modules() if name.split(".")[-2:-1] == ["branches"]]


def by_descent(steps: int, rate: float) -> Tensor:
    """What the query is told after steps down the mean of ``(w x - y)^2 / 2`` from zero."""
    x, y = CONTEXT[..., :5].double(), CONTEXT[..., 5:].double()
    w = torch.zeros(4, 5, 1, dtype=torch.float64)
    for _ in range(steps):
        w = w - rate * x.mT @ (x @ w - y) / x.shape[1]
    return (QUERY[..., :5].double() @ w)[:, 0, 0]


@torch.no_grad()
def set_by_hand(model: Any, p: list[float], q: list[float]) -> None:
    for head in heads(model):
        for role, diagonal in (("value", p), ("query", q)):
            share = 2 if role == "value" else 1  # of two heads, which add up
            head.get_submodule(role).weight.copy_(torch.tensor(diagonal).view(-1, 1, 1) / share)


@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_a_layer_is_a_step_of_gradient_descent(layers: int) -> None:
    model, rate = build(NAME, graph__layers__times=layers), 0.3
    set_by_hand(model, [0, 0, 0, 0, 0, -rate / 20], [1, 1, 1, 1, 1, 0])
    expected = by_descent(layers, rate)
    assert expected.std() > 0.1
    torch.testing.assert_close(-model(CONTEXT, QUERY)[:, 0, 5].double(), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_equals_its_formula() -> None:
    """``e + sum_h P_h (sum_j e_j e_j') Q_h e`` over the examples j, full matrices."""
    linears = {"key": "no_matrix", "out": "no_matrix"}
    model = random(build(NAME, blocks__head__linears=linears))
    e = torch.cat((CONTEXT, QUERY), 1) / 3
    given = e
    layers = heads(model)
    assert len(layers) == 6
    for pair in zip(layers[::2], layers[1::2], strict=True):
        moments = torch.einsum("bji,bjk->bik", e[:, :-1], e[:, :-1])
        e = e + sum(e @ head.query.weight.T @ moments @ head.value.weight.T for head in pair)
    torch.testing.assert_close(model(given[:, :-1], given[:, -1:]), e[:, -1:], atol=1e-3, rtol=1e-4)


def test_its_matrices_are_diagonals() -> None:
    assert parameters(build(NAME)) == 3 * 2 * 2 * 6
    assert parameters(build(NAME, blocks__head__linears={"key": "no_matrix", "out": "no_matrix"})) == 3 * 2 * 2 * 36


@torch.no_grad()
def test_examples_do_not_read_the_query() -> None:
    model = random(build(NAME, outputs={"all": "layers"}))
    once, other = (model(CONTEXT / 3, query) for query in (QUERY / 3, QUERY))
    assert torch.equal(once[:, :20], other[:, :20])
    assert not torch.allclose(once[:, 20:], other[:, 20:])
    torch.testing.assert_close(model(CONTEXT.flip(1) / 3, QUERY / 3)[:, 20:], once[:, 20:], atol=1e-4, rtol=1e-4)


def test_a_causal_memory_is_refused() -> None:
    with pytest.raises(SpecError, match="read whole, and this one is causal along example"):
        build(NAME, interface__inputs__context__causal="example")
