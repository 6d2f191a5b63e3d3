"""Hedgehog. Zhang et al. 2024, arXiv 2402.04347."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from compiler.adopt import adopt
from compiler.generate import generate
from tests.compiler.modules.bodies import body
from tests.zoo.published import build, random, spec

pytestmark = pytest.mark.system("hedgehog")

NAME = "attention/hedgehog"
PLAIN = {"kind": "attention", "heads": 4}
X = torch.randn(2, 70, 16, generator=torch.Generator().manual_seed(0))


def maps(model: Any) -> list[Any]:
    return [model.layers.get_submodule(f"{number}.mixer.body.features") for number in range(2)]


def heads_of(model: Any, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Queries and keys of each layer, ``[batch, tokens, heads, width]``."""
    found: list[tuple[Tensor, Tensor]] = []
    hooks = []
    for number in range(2):
        qkv = model.layers.get_submodule(f"{number}.mixer.body.qkv")
        hooks.append(qkv.register_forward_hook(lambda _, __, out: found.append(parts(out))))
    model(tokens)
    for hook in hooks:
        hook.remove()
    return found


def parts(out: Tensor) -> tuple[Tensor, Tensor]:
    q, k, _ = out.detach().unflatten(-1, (3, 4, 16)).unbind(2)
    return q, k


def softmax_weights(q: Tensor, k: Tensor) -> Tensor:
    later = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).triu(1)
    return (torch.einsum("bqhd,bkhd->bhqk", q, k) / 4).masked_fill(later, float("-inf")).softmax(-1)


def both(x: Tensor, weight: Tensor) -> Tensor:
    y = torch.einsum("bthi,hoi->btho", x, weight)
    return torch.cat((y.softmax(-1), (-y).softmax(-1)), -1)


def our_weights(features: Any, q: Tensor, k: Tensor) -> Tensor:
    products = torch.einsum("bqhf,bkhf->bhqk", both(q, features.query), both(k, features.key)).tril()
    return products / products.sum(-1, keepdim=True)


def divergence(model: Any, given: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean Kullback-Leibler divergence of our weights from those of the softmax, over layers, heads and queries."""
    total = torch.zeros(())
    for features, (q, k) in zip(maps(model), given, strict=True):
        wanted, found = softmax_weights(q, k), our_weights(features, q, k)
        total = total + (wanted * ((wanted + 1e-9).log() - (found + 1e-9).log())).sum(-1).mean() / 2
    return total


def test_a_model_is_converted_and_its_maps_come_to_the_softmax() -> None:
    plain = random(build(NAME, blocks__layer__mixer=PLAIN))
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randint(0, 256, (4, 32), generator=generator) for _ in range(9)]
    with torch.no_grad():
        given = [heads_of(plain, tokens) for tokens in draw]
    model = adopt(plain, spec(NAME))
    for name, value in plain.state_dict().items():  # queries, keys, values, what is outside: all taken over
        assert torch.equal(model.state_dict()[name], value)
    learned = [p for features in maps(model) for p in features.parameters()]
    optimiser = torch.optim.AdamW(learned, lr=1e-2, weight_decay=0)
    with torch.no_grad():
        before = divergence(model, given[8])
    for step in range(120):
        loss = divergence(model, given[step % 8])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        after, even = divergence(model, given[8]), mean_weights(given[8])
        assert after < before / 2
        assert after < even / 2
        error = (model(draw[8]) - plain(draw[8])).square().mean()
        assert error < (adopt(plain, spec(NAME))(draw[8]) - plain(draw[8])).square().mean()


def mean_weights(given: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The divergence of equal weights."""
    wanted = torch.stack([softmax_weights(q, k) for q, k in given])
    even = torch.ones_like(wanted[0]).tril()
    even = even / even.sum(-1, keepdim=True)
    return (wanted * ((wanted + 1e-9).log() - (even + 1e-9).log())).sum(-1).mean()


@pytest.mark.parametrize("over", ["none", "features"])
@pytest.mark.parametrize("causal", ["token", ""])
@torch.no_grad()
def test_equals_its_definition(over: str, causal: str) -> None:
    features = f"{{kind: hedgehog, over: {over}, bias: true}}"
    model = body(f"{{name: a, kind: linear_attention, heads: 2, features: {features}}}", "token: 70", causal=causal)
    state = model.a.state_dict()
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (X @ state["qkv.weight"].T).chunk(3, dim=-1))
    made = []
    for name, part in (("query", q), ("key", k)):
        y = part @ state[f"features.{name}"].mT + state[f"features.{name}_bias"][:, None]
        made.append(torch.cat((y.exp(), (-y).exp()) if over == "none" else (F.softmax(y, -1), F.softmax(-y, -1)), -1))
    weights = made[0] @ made[1].mT
    weights = weights.tril() if causal else weights
    expected = (weights / weights.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(2) @ state["out.weight"].T
    torch.testing.assert_close(model(X), expected, atol=1e-5, rtol=1e-4)


def test_starts_at_the_identity() -> None:
    for features in maps(build(NAME)):
        assert torch.equal(features.query, torch.eye(16).expand(4, -1, -1))
        assert torch.equal(features.key, features.query)


@torch.no_grad()
def test_token_by_token_equals_all_at_once() -> None:
    model = random(build(NAME))
    tokens = torch.arange(2 * 90).reshape(2, 90) * 7 % 256
    found = torch.tensor(generate(model, tokens[:, :8], tokens=80))
    whole = model(torch.cat((tokens[:, :8], found), 1)[:, :-1]).argmax(-1)[:, 7:]
    assert torch.equal(whole, found)


def test_it_is_no_node_of_a_graph() -> None:
    with pytest.raises(SpecError, match="hedgehog is a feature_map, not a node of a graph"):
        body("hedgehog")
