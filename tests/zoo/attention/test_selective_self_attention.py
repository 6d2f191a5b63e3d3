"""Selective self-attention. Zhang et al. 2024, arXiv 2411.12892."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from compiler.adopt import adopt
from compiler.generate import generate
from tests.compiler.modules.bodies import body
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("selective_self_attention")

NAME = "attention/selective_self_attention"
NEW = ("query_token", "query_place", "value_token")
MLP = {"kind": "mlp", "ratio": 4, "bias": True}
PLAIN: dict[str, Any] = {
    "blocks__layer__graph": [
        {"name": "read", "from": "x", "kind": "layer_norm"},
        {"name": "attention", "from": "read", "kind": "attention", "heads": "heads", "bias": True,
         "position": {"kind": "rope", "share": 0.25}},
        {"name": "mlp", "from": "x", "kind": "sequence", "body": ["layer_norm", MLP]},
        {"name": "out", "from": ["x", "attention", "mlp"], "kind": "combine"},
    ],
    "graph__layers": {"name": "layers", "kind": "repeat", "times": "layers", "body": "layer"},
}  # fmt: skip
TOKENS = torch.arange(2 * 40).reshape(2, 40) * 5 % 256


def test_layers_share_what_is_less_than_half_a_percent() -> None:
    ours, plain = (build(f"{NAME}_160m", device="meta", **changes) for changes in ({}, PLAIN))
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=50304, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072
    )
    with torch.device("meta"):
        assert parameters(plain) == parameters(transformers.GPTNeoXForCausalLM(config)) == 162_322_944
    added = parameters(ours) - parameters(plain)
    assert added == 2 * 768 + 1
    assert added < 0.005 * parameters(plain)
    small = build(NAME)
    for name in NEW:
        first, *others = (small.get_submodule(f"layers.{number}.{name}") for number in range(3))
        assert all(a is b for other in others for a, b in zip(first.parameters(), other.parameters(), strict=True))


@torch.no_grad()
def test_put_into_a_trained_model_it_changes_nothing_at_first() -> None:
    plain = random(build(NAME, **PLAIN))
    made = adopt(plain, spec(NAME), zero=[f"layers.*.{name}" for name in NEW])
    torch.testing.assert_close(made(TOKENS), plain(TOKENS), atol=1e-5, rtol=0)
    for name in NEW:
        for parameter in made.get_submodule(f"layers.0.{name}").parameters():
            parameter.add_(0.1)
    assert not torch.allclose(made(TOKENS), plain(TOKENS), atol=1e-2)
    with pytest.raises(SpecError, match="no new weight is called"):
        adopt(plain, spec(NAME), zero=["layers.*.key_token"])


def test_what_is_put_in_learns() -> None:
    made = adopt(random(build(NAME, **PLAIN)), spec(NAME), zero=[f"layers.*.{name}" for name in NEW]).train()
    made(TOKENS).square().sum().backward()
    for name in NEW:
        for parameter in made.get_submodule(f"layers.0.{name}").parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 1e-6


def by_temperatures(layer: Any, x: Tensor) -> Tensor:
    """The attention of a layer, queries and values multiplied after their matrices; no biases."""
    part, tokens = layer.attention, x.shape[1]
    token = (x @ layer.query_token.linear.weight.T).tanh()
    place = 1 + layer.query_place.gain * torch.arange(1, tokens + 1).log()[:, None]
    q = (x @ part.query.weight.T) * (token + place)
    v = (x @ part.value.weight.T) * (1 + (x @ layer.value_token.linear.weight.T).tanh())
    q, k, v = (y.unflatten(-1, (4, 16)) for y in (q, x @ part.key.weight.T, v))
    q, k = part.position(q, k, None, None)
    q, k, v = (y.transpose(1, 2) for y in (q, k, v))
    scores = (q @ k.mT / 4).masked_fill(~torch.ones(tokens, tokens).tril().bool(), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ part.out.weight.T


@torch.no_grad()
def test_equals_attention_at_temperatures() -> None:
    model = random(build(NAME, dims__layers=1))
    layer = model.layers.get_submodule("0")
    for name, parameter in layer.named_parameters():
        if name.endswith("bias") or name.startswith("mlp.body.mlp.down"):
            parameter.zero_()
    x = torch.randn(2, 20, 64, generator=torch.Generator().manual_seed(0))
    read = torch.nn.functional.layer_norm(x, (64,), layer.read.weight)
    torch.testing.assert_close(layer(x), x + by_temperatures(layer, read), atol=1e-4, rtol=0)


def test_it_decodes() -> None:
    model = random(build(NAME))
    found = torch.tensor(generate(model, TOKENS[:, :8], tokens=8))
    whole = model(torch.cat((TOKENS[:, :8], found), 1)[:, :-1]).argmax(-1)[:, 7:]
    assert torch.equal(whole, found)


def test_a_place_needs_one_axis() -> None:
    with pytest.raises(SpecError, match="a place needs one axis"):
        body("{kind: log_place_scale}", axes="row: 3, column: 4")
