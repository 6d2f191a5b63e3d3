"""Key-Value Transformer. Borji 2023, arXiv 2305.19129."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from tests.compiler.modules.bodies import body, by_pairs
from tests.zoo.published import build, parameters, random

pytestmark = pytest.mark.system("kv_transformer")

X = torch.randn(2, 20, 64, generator=torch.Generator().manual_seed(0))
PORT = "attend.attention.scores"
STREAMS = {"kind": "backbone", "inputs": {"x": {"axes": {"token": "n"}, "width": 64, "causal": "token", "limit": 128}}}


def layer(position: Any = "none") -> tuple[Any, Tensor, Tensor]:
    """The example's attention alone, what it gives, and its scores ``[batch, heads, queries, memory]``."""
    graph = [
        {"name": "key", "from": "x", "kind": "project", "width": 64},
        {"name": "a", "kind": "attention", "heads": 4, "position": position, "values": "x",
         "linears": {"query": "no_matrix", "key": "no_matrix"}},
    ]  # fmt: skip
    model = random(
        build("attention/kv_transformer", interface=STREAMS, graph=graph, outputs={"a": "a", "s": "a.scores"})
    )
    found = model(X)
    return model, found["a"], found["s"].unflatten(1, (20, 20)).permute(0, 3, 1, 2)


def test_a_third_fewer_weights_go_into_the_attention() -> None:
    mixer = {"kind": "attention", "heads": 4}
    ours, plain = build("attention/kv_transformer"), build("attention/kv_transformer", blocks__layer__mixer=mixer)
    assert parameters(plain) - parameters(ours) == 2 * 64 * 64  # a matrix in each layer
    block = ours.layers.get_submodule("0.mixer.body")
    into = parameters(block) - 64 * 64  # without the matrix out
    assert into == parameters(plain.layers.get_submodule("0.mixer.body.qkv")) * 2 // 3


@torch.no_grad()
def test_scores_are_symmetric() -> None:
    model, given, scores = layer()
    assert scores.std() > 0.1
    torch.testing.assert_close(scores, scores.mT, atol=1e-6, rtol=1e-5)
    key, value = model.key.linear.weight, model.a.value.weight
    state = {"qkv.weight": torch.cat((key, key, value)), "out.weight": model.a.out.weight}
    causal = torch.ones(20, 20, dtype=torch.bool).tril()
    torch.testing.assert_close(given, by_pairs(state, X, 4, allowed=causal), atol=1e-5, rtol=0)


@torch.no_grad()
def test_positions_break_the_symmetry() -> None:
    model, _, scores = layer({"kind": "sinusoidal_bias", "width": 8})
    difference = scores - scores.mT
    assert difference.abs().max() > 0.1
    rates = 10000.0 ** -(torch.arange(4) / 4)
    angles = torch.arange(20)[:, None] * rates
    term = torch.cat((angles.sin(), angles.cos()), -1) @ model.a.position.weight.T
    expected = (term[None] - term[:, None]).permute(2, 0, 1).expand(2, -1, -1, -1)
    torch.testing.assert_close(difference, expected, atol=1e-5, rtol=0)


def test_values_are_of_the_tokens_that_have_keys() -> None:
    few = "{name: few, from: x, kind: pool, window: 2}, {from: x, kind: attention, heads: 2, values: few}"
    with pytest.raises(SpecError, match="few is .* keys are made of"):
        body(f"[{few}]")


def test_a_place_needs_one_axis() -> None:
    with pytest.raises(SpecError, match="a place needs one axis"):
        body("{kind: attention, heads: 2, position: sinusoidal_bias}", axes="row: 3, column: 4")
