"""Biases by distance against published values and other ways to the same numbers."""

from typing import Any

import pytest
import torch

from compiler.modules.relative import BucketedBias
from tests.compiler.modules.bodies import assert_close, body


def leaf(model: Any) -> BucketedBias:
    return next(module for module in model.modules() if isinstance(module, BucketedBias))


def attention(buckets: int, reach: int, causal: str) -> Any:
    bias = f"{{kind: bucketed_bias, buckets: {buckets}, reach: {reach}}}"
    return body(f"{{kind: attention, heads: 2, position: {bias}}}", "token: length", causal=causal)


# Of 8 buckets both ways: 0 and 1 exactly, 2 to 4 and from 5 on, on each side; computed by hand for a reach of 12.
BOTH = [(-20, 3), (-5, 3), (-4, 2), (-2, 2), (-1, 1), (0, 0), (1, 5), (2, 6), (4, 6), (5, 7), (20, 7)]


@torch.no_grad()
def test_near_distances_have_a_bucket_and_far_ones_share_wider_ones() -> None:
    bias = leaf(attention(8, 12, ""))
    bias.weight.copy_(torch.arange(8.0)[:, None].expand(8, 2))
    x = torch.zeros(1, 41, 16)
    found = bias(x, x, None, None)[0, 0, 20]
    assert [(distance, int(found[20 + distance])) for distance, _ in BOTH] == BOTH


@pytest.mark.parametrize("causal", ["", "token"])
@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (32, 20), (8, 100), (4, 3), (256, 4000)])
@torch.no_grad()
def test_buckets_are_those_of_t5(buckets: int, reach: int, causal: str) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    bias = leaf(attention(buckets, reach, causal))
    distance = torch.arange(-5000, 1 if causal else 5000)
    wanted = t5.T5Attention._relative_position_bucket(distance, not causal, buckets, reach)
    places = distance - distance.min()
    bias.weight.copy_(torch.arange(float(buckets))[:, None].expand(buckets, 2))
    at = -distance.min()[None, None]
    assert torch.equal(bias(at, places[None], at, places[None])[0, 0, 0].long(), wanted)


@torch.no_grad()
def test_one_bias_for_all_layers_is_that_of_each_layer() -> None:
    layer = "{kind: residual, body: {kind: attention, heads: 2, OWN}}"
    alone = body(
        f"[{{kind: repeat, times: 2, body: {layer.replace('OWN', 'position: bucketed_bias')}}}]", "token: length",
        causal="token",
    )  # fmt: skip
    shared = body(
        f"[{{name: bias, kind: position_bias, heads: 2}}, {{from: x, kind: repeat, times: 2, body: "
        f"{layer.replace('OWN', 'score_bias: bias')}}}]",
        "token: length", causal="token",
    )  # fmt: skip
    tables = [module for module in alone.modules() if isinstance(module, BucketedBias)]
    assert len(tables) == 2
    for module in tables:
        module.weight.copy_(leaf(shared).weight)
    state = {name: value for name, value in shared.state_dict().items() if not name.startswith("bias")}
    assert not alone.load_state_dict(state, strict=False).unexpected_keys
    x = torch.randn(2, 30, 16)
    assert_close(shared(x), alone(x))
