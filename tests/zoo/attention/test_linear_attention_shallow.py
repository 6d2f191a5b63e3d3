"""A shallow linear transformer on linear regression in context. Ahn et al. 2023, arXiv 2310.01082."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.attention.in_context import regression
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("linear_attention_shallow")

NAME = "attention/linear_attention_shallow"
CONTEXT, QUERY, _ = regression(4, 20, 5, torch.Generator().manual_seed(0))


def test_it_is_attention_alone() -> None:
    model = build(NAME)
    assert parameters(model) == 3 * 2 * 36
    kinds = {"join", "residual", "linear_attention", "repeat", "sequence"}
    assert {node["kind"] for node in walk(spec(NAME).canonical())} <= {"backbone", "normal", "no_matrix", *kinds}


def walk(tree: Any) -> Iterable[dict[str, Any]]:
    if isinstance(tree, dict):
        if "kind" in tree:
            yield tree
        for value in tree.values():
            yield from walk(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from walk(value)


@torch.no_grad()
def test_equals_its_formula() -> None:
    """``Z + Z Q M Z' Z P / 20`` layer by layer, where M leaves out the query."""
    model = random(build(NAME))
    z = torch.cat((CONTEXT, QUERY), 1) / 3
    seen = torch.ones(21)
    seen[20] = 0
    for number in range(3):
        part = model.layers.get_submodule(f"{number}.residual.body")
        scores = z @ part.query.weight.T @ z.mT
        z = z + (scores * seen) @ z @ part.value.weight.T / 20
    torch.testing.assert_close(model(CONTEXT / 3, QUERY / 3), z[:, -1:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_layer_is_linear_in_its_values() -> None:
    model = random(build(NAME, graph__layers__times=1))
    part = model.layers.get_submodule("0.residual.body")
    value = part.value.weight.clone()
    told = []
    for factor in (0.0, 1.0, 2.0, -1.0):
        part.value.weight.copy_(factor * value)
        told.append(model(CONTEXT, QUERY) - QUERY)
    assert told[1].std() > 0.1
    assert torch.equal(told[0], torch.zeros_like(told[0]))
    torch.testing.assert_close(told[2], 2 * told[1])
    torch.testing.assert_close(told[3], -told[1])
    plain = random(build(NAME, graph__layers__times=1, blocks__attend__feature_map="elu"))
    assert not torch.allclose(plain(CONTEXT, 2 * QUERY) - 2 * QUERY, 2 * (plain(CONTEXT, QUERY) - QUERY), atol=1e-2)


def loss_after(steps: int, optimise: Callable[[Any], torch.optim.Optimizer]) -> float:
    """The mean square error on fresh instances at the end; infinite if training diverged."""
    model, generator = build(NAME).train(), torch.Generator().manual_seed(0)
    optimiser = optimise(model.parameters())
    losses: list[Tensor] = []
    for _ in range(steps):
        context, query, wanted = regression(256, 20, 5, generator)
        loss = (model(context, query)[:, 0, 5] + wanted).square().mean()
        if not loss.isfinite():
            return float("inf")
        losses.append(loss.detach())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return torch.stack(losses[-20:]).mean().item()


def test_adam_does_better_than_gradient_descent() -> None:
    """Each at the best of its learning rates, gradients clipped, as the paper compares them."""
    adam = loss_after(150, lambda p: torch.optim.Adam(p, 0.03))
    sgd = min(loss_after(150, lambda p, r=rate: torch.optim.SGD(p, r, momentum=0.9)) for rate in (0.003, 0.01, 0.03))
    assert adam < 0.5 * sgd
    assert adam < 1 < 5  # of predicting zero
