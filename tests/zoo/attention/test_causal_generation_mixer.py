"""Causal generation without attention. Hilsenbek 2024, arXiv 2406.10906."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from search.cost.price import price
from tests.compiler.modules.bodies import body
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("causal_generation_mixer")

NAME = "attention/causal_generation_mixer"
SHIFT = {"blocks__generate": {"kind": "token_shift"}}
ATTENTION = {"blocks__generate": {"kind": "attention", "heads": 4}}
X = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))


def test_jacobian_is_lower_triangular() -> None:
    stream = {"axes": {"token": "length"}, "width": 96, "causal": "token", "limit": 256}
    features = {"kind": "backbone", "inputs": {"x": stream}}
    layers = [{"kind": "repeat", "times": 4, "body": "layer"}, "layer_norm"]
    model, x = random(build(NAME, interface=features, graph=layers)), torch.randn(1, 10, 96, requires_grad=True)
    out, reads = model(x), torch.zeros(10, 10, dtype=torch.bool)
    for place in range(10):
        (grad,) = torch.autograd.grad(out[0, place].square().sum(), x, retain_graph=True)
        reads[place] = grad[0].abs().sum(-1) > 0
    assert torch.equal(reads, torch.ones_like(reads).tril())


def test_fewer_parameters_than_attention_and_less_time() -> None:
    width, layers = 96, 4
    mixer, attention = build(NAME), build(NAME, **ATTENTION)
    assert parameters(attention) - parameters(mixer) == layers * (4 * width * width - 2 * width)
    for changes, device in ((SHIFT, "l4"), (SHIFT, "xeon_8480"), ({}, "raspberry_pi_5")):
        costs = [price(spec(NAME, **change), length=256, device=device) for change in (changes, ATTENTION)]
        assert costs[0].forward < costs[1].forward
        assert costs[0].latency_ms < 0.9 * costs[1].latency_ms


@torch.no_grad()
def test_each_token_mixes_with_its_predecessor() -> None:
    stream = {"axes": {"token": 12}, "width": 16, "causal": "token"}
    model = random(build(NAME, interface={"kind": "backbone", "inputs": {"x": stream}}, graph=["token_shift"]))
    (taps,) = model.parameters()
    before, own = taps[:, 0].unbind(1)
    expected = torch.stack([own * X[:, t] + before * (X[:, t - 1] if t else 0) for t in range(12)], dim=1)
    torch.testing.assert_close(model(X), expected)
    before.zero_()
    own.fill_(1)
    assert torch.equal(model(X), X)


@torch.no_grad()
def test_context_is_the_mean_so_far() -> None:
    model = body("{name: m, kind: running_mean}", causal="token")
    torch.testing.assert_close(model(X), torch.stack([X[:, : t + 1].mean(1) for t in range(12)], dim=1))


@torch.no_grad()
def test_padding_has_no_part_in_the_mean() -> None:
    model = body("{name: m, kind: running_mean}", causal="token", interface="padding: true")
    valid = torch.arange(12)[None] >= torch.tensor([[3], [0]])
    out = model(X, valid)
    torch.testing.assert_close(out[0, 3:], model(X[:1, 3:], valid[1:, 3:])[0])


def test_it_stands_for_an_activation_as_well() -> None:
    """A layer without attention and without another nonlinearity still learns which token stood before."""
    channel = [{"kind": "project", "width": 192}, {"kind": "token_shift"}, {"kind": "project", "width": 96}]
    changes = {"blocks__layer": {"kind": "transformer_layer", "channel": channel}, "graph__layers__times": 1}
    assert copied(**changes) > 0.9


@torch.no_grad()
def accuracy(model: Any, tokens: Tensor) -> float:
    return (model.eval()(tokens)[:, 1:].argmax(-1) == tokens[:, :-1]).float().mean().item()


def copied(**changes: Any) -> float:
    """Accuracy in telling the token before, after a short training."""
    torch.manual_seed(0)
    model = build(NAME, **changes).train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        tokens = torch.randint(0, 128, (32, 16), generator=generator)
        loss = F.cross_entropy(model(tokens)[:, 1:].flatten(0, 1), tokens[:, :-1].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return accuracy(model, torch.randint(0, 128, (64, 16), generator=generator))


def test_a_mean_needs_a_causal_axis() -> None:
    with pytest.raises(SpecError, match="which is not causal"):
        body("{name: m, kind: running_mean}")
