"""Tensor attention. Alman and Song 2023, arXiv 2310.04064."""

import math
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from search.cost.price import price
from tests.compiler.modules.bodies import body, by_pairs
from tests.zoo.published import build, spec

pytestmark = pytest.mark.system("tensor_attention")

NAME = "attention/tensor_attention"
PLAIN = {"kind": "attention", "heads": 2, "bias": True}
X = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))


def by_triples(state: dict[str, Tensor], x: Tensor, heads: int, causal: bool) -> Tensor:
    """Triple by triple, as the definition says."""
    parts = (x @ state["fused.weight"].T + state["fused.bias"]).unflatten(-1, (5, heads, -1))
    q, k, k2, v, v2 = parts.unbind(2)
    out = torch.zeros_like(q)
    for i in range(x.shape[1]):
        weights, total = 0.0, 0.0
        for j, other in product(range(i + 1 if causal else x.shape[1]), repeat=2):
            weight = ((q[:, i] * k[:, j] * k2[:, other]).sum(-1, keepdim=True) / q.shape[-1] ** 0.5).exp()
            weights, total = weights + weight * v[:, j] * v2[:, other], total + weight
        out[:, i] = weights / total
    return out.flatten(2) @ state["out.weight"].T + state["out.bias"]


@pytest.mark.parametrize("causal", ["token", ""])
@torch.no_grad()
def test_equals_a_loop_over_triples(causal: str) -> None:
    model = body("{name: a, kind: tensor_attention, heads: 2}", "token: 16", causal=causal)
    expected = by_triples(model.a.state_dict(), X, 2, bool(causal))
    torch.testing.assert_close(model(X), expected, atol=1e-5, rtol=0)


def test_costs_the_cube_of_the_length() -> None:
    flops = [price(spec(NAME), length=length, device="l4").forward for length in (512, 1024)]
    assert 2.95 < math.log2(flops[1] / flops[0]) < 3.01


@torch.no_grad()
def test_a_second_key_of_ones_is_plain_attention() -> None:
    model = body("{name: a, kind: tensor_attention, heads: 2}", "token: 16")
    weight, bias = (part.unflatten(0, (5, 16)) for part in (model.a.fused.weight, model.a.fused.bias))
    bias.zero_()
    model.a.out.bias.zero_()
    for second in (2, 4):
        weight[second] = 0
        bias[second] = 1
    state = {"qkv.weight": weight[[0, 1, 3]].flatten(0, 1), "out.weight": model.a.out.weight}
    torch.testing.assert_close(model(X), by_pairs(state, X, 2), atol=1e-5, rtol=0)


def batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Six tokens of four signs, and which of them are the product of two."""
    bits = torch.randint(0, 16, (count, 6), generator=generator)
    found = bits[:, :, None, None] ^ bits[:, None, :, None] ^ bits[:, None, None, :]
    return (bits[..., None] >> torch.arange(4) & 1).float() * 2 - 1, (found == 0).flatten(2).any(-1)


def accuracy(**changes: Any) -> float:
    model = build(NAME, **changes).train()
    optimiser, generator = torch.optim.AdamW(model.parameters()), torch.Generator().manual_seed(0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=500)
    for _ in range(500):
        x, y = batch(64, generator)
        loss = F.binary_cross_entropy_with_logits(model(x)[..., 0], y.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        x, y = batch(1000, generator)
        return ((model(x)[..., 0] > 0) == y).float().mean().item()


def test_matches_triples_that_one_softmax_layer_cannot() -> None:
    assert accuracy() > 0.98
    assert accuracy(graph__mixer__body=PLAIN) < 0.85


def test_tokens_lie_along_one_axis() -> None:
    with pytest.raises(SpecError, match="along one axis"):
        body("{kind: tensor_attention, heads: 2}", "row: 4, column: 4")
