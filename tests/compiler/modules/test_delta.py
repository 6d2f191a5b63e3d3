"""The gated delta rule against the released model, and its chunked form against the rule."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compiler.modules.delta import chunked, one_by_one
from tests.compiler.modules.bodies import assert_close, body

SIZES = {"hidden_size": 24, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 6,
         "linear_value_head_dim": 8, "num_hidden_layers": 4}  # fmt: skip
NODE = "{kind: gated_delta_rule, heads: 4, key_heads: 2, key_width: 6, value_width: 8}"


def by_role(theirs: Any) -> Tensor:
    """Their two matrices, whose rows come key head by key head, as ours: query, key, value, gate, beta, decay."""
    rows = theirs.in_proj_qkvz.weight.unflatten(0, (2, -1)).split((6, 6, 16, 16), dim=1)
    gates = theirs.in_proj_ba.weight.unflatten(0, (2, -1)).split((2, 2), dim=1)
    return torch.cat([part.flatten(0, 1) for part in (*rows, *gates)])


@torch.no_grad()
def released(seed: int = 0) -> tuple[Any, Any]:
    """Their module and ours with its weights."""
    qwen: Any = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    torch.manual_seed(seed)
    theirs = qwen.Qwen3NextGatedDeltaNet(qwen.Qwen3NextConfig(**SIZES), 0)
    for parameter in theirs.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.05)
    ours = body(NODE, "token: n", 24, interface="padding: true", causal="token")
    state = {
        "inputs.weight": by_role(theirs),
        "convolution.weight": theirs.conv1d.weight,
        "rate": theirs.A_log,
        "step": theirs.dt_bias,
        "norm.weight": theirs.norm.weight,
        "out.weight": theirs.out_proj.weight,
    }
    ours.load_state_dict({f"gated_delta_rule.{name}": value for name, value in state.items()})
    return theirs, ours


@pytest.mark.parametrize("tokens", [1, 9, 80])
@torch.no_grad()
def test_gated_delta_rule_is_that_of_transformers(tokens: int) -> None:
    theirs, ours = released()
    x = torch.randn(2, tokens, 24)
    assert_close(ours(x, torch.ones(2, tokens, dtype=torch.bool)), theirs(x))


@pytest.mark.parametrize("left", [True, False])
@torch.no_grad()
def test_padding_is_that_of_transformers(left: bool) -> None:
    theirs, ours = released()
    x, place = torch.randn(2, 40, 24), torch.arange(40)
    valid = torch.stack((place >= 0, place >= 7 if left else place < 33))
    assert_close(ours(x, valid)[valid], theirs(x, attention_mask=valid.float())[valid])
    assert_close(ours(x, valid)[1:, valid[1]], ours(x[1:, valid[1]], valid[1:, valid[1]]))


def given(tokens: int, seed: int = 0) -> list[Tensor]:
    """Queries, keys, values, decays and strengths of two heads of keys and four of values."""
    generator = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, tokens, 2, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    v = torch.randn(2, tokens, 4, 8, generator=generator, dtype=torch.float64)
    g = -4 * torch.rand(2, tokens, 4, generator=generator, dtype=torch.float64) ** 4
    beta = 2 * torch.rand(2, tokens, 4, generator=generator, dtype=torch.float64)
    state = torch.randn(2, 4, 6, 8, generator=generator, dtype=torch.float64)
    return [x.requires_grad_() for x in (q, k, v, g, beta, state)]


@pytest.mark.parametrize("tokens", [1, 31, 32, 100])
def test_chunked_equals_token_by_token(tokens: int) -> None:
    inputs, found = given(tokens), []
    for form in (chunked, one_by_one):
        read, state = form(*inputs)
        weights = torch.linspace(-1, 1, read.numel(), dtype=read.dtype).view_as(read)
        loss = (read * weights).sum() + state.square().sum()
        found.append([read, state, *torch.autograd.grad(loss, inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_equal_keys_and_the_fastest_decays_stay_numbers() -> None:
    q, k, v, _, beta, _ = (x.detach().float() for x in given(200))
    k = k[:, :1].expand_as(k)
    for g in (torch.zeros_like(beta), torch.full_like(beta, -50.0)):
        read, expected = chunked(q, k, v, g, beta)[0], one_by_one(q, k, v, g, beta)[0]
        torch.testing.assert_close(read, expected, atol=1e-4, rtol=1e-4)
