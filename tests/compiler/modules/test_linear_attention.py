"""Linear attention against its definition."""

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from compiler.decoding import Decoding
from compiler.modules.linear_attention import FEATURE_MAPS, chunked, one_by_one
from search.cost.cache import kept_numbers, kept_of
from tests.compiler.modules.bodies import assert_close, body, under


def by_pairs(ours: Any, x: Tensor, allowed: Tensor, feature_map: str, normalize: bool) -> Tensor:
    """The attention over all pairs of tokens."""
    state = under(ours, "linear_attention")
    parts = (x @ state["qkv.weight"].T).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in parts)
    weights = (FEATURE_MAPS[feature_map](q) @ FEATURE_MAPS[feature_map](k).transpose(-1, -2)) * allowed
    if normalize:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
    return (weights @ v).transpose(1, 2).flatten(2) @ state["out.weight"].T


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("feature_map", "normalize"), [("elu", True), ("softmax", True), ("relu", True),
                                                        ("elu", False), ("identity", False)])  # fmt: skip
@torch.no_grad()
def test_linear_attention_is_attention_with_a_kernel(causal: bool, feature_map: str, normalize: bool) -> None:
    torch.manual_seed(0)
    node = f"{{kind: linear_attention, heads: 2, feature_map: {feature_map}, normalize: {str(normalize).lower()}}}"
    ours = body(node, "token: n", interface="padding: true", causal="token" if causal else "")
    x, place = torch.randn(3, 150, 16), torch.arange(150)
    valid = torch.stack((place >= 0, place >= 11, place < 90))
    allowed = valid[:, None, None, :] & ((place[:, None] >= place) | (not causal))
    expected = by_pairs(ours, x, allowed, feature_map, normalize)
    assert_close(ours(x, valid)[valid] / expected.std(), expected[valid] / expected.std())


@pytest.mark.parametrize("tokens", [1, 64, 150])
def test_chunked_equals_token_by_token(tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, tokens, 4), (2, 3, tokens, 4), (2, 3, tokens, 5), (2, 3, 4, 5)]
    inputs = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    for given in (inputs, inputs[:3]):
        found = []
        for form in (chunked, one_by_one):
            read, state = form(*given)
            found.append([read, state, *torch.autograd.grad(read.square().sum() + state.square().sum(), given)])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_weights_that_may_sum_to_zero_are_not_normalised() -> None:
    with pytest.raises(SpecError, match="both signs"):
        body("{kind: linear_attention, heads: 2, feature_map: identity}")


@pytest.mark.parametrize("features", ["", "hedgehog", "{kind: gaussian_mixture_features, count: 5}"])
@torch.no_grad()
def test_it_keeps_what_it_says(features: str) -> None:
    told = f", features: {features}" if features else ""
    model = body(f"{{kind: linear_attention, heads: 2{told}}}", "token: n", causal="token")
    decoding = Decoding(model)
    decoding(torch.randn(3, 4, 16))
    kept = [tensor for calls in decoding._kept.values() for call in calls for tensor in call.values()]
    assert sum(tensor[0].numel() for tensor in kept) == kept_numbers(kept_of(model.spec.graph), 4)


def test_a_causal_memory_is_refused() -> None:
    with pytest.raises(SpecError, match="read whole, and this one is causal along token"):
        body("{kind: linear_attention, heads: 2, memory: {kind: mlp, ratio: 1}}", "token: n", causal="token")
