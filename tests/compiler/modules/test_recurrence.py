"""The real-gated linear recurrent unit against the released model, and the scan against its definition."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compiler.modules.recurrence import scan
from tests.compiler.modules.bodies import assert_close, body


@torch.no_grad()
def released() -> tuple[Any, Any]:
    """Their module and ours with its weights."""
    gemma: Any = pytest.importorskip("transformers.models.recurrent_gemma.modeling_recurrent_gemma")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "lru_width": 24, "num_attention_heads": 4, "num_hidden_layers": 3}
    theirs = gemma.RecurrentGemmaRecurrentBlock(gemma.RecurrentGemmaConfig(**sizes), 0)
    for name, parameter in theirs.named_parameters():
        parameter.copy_(torch.randn(parameter.shape) * (1.0 if "rg_lru" in name else 0.3))
    ours = body("{kind: rg_lru, width: 24, heads: 4}", "token: n", 16, interface="padding: true", causal="token")
    branches = (theirs.linear_y, theirs.linear_x)
    state = {
        "inputs.weight": torch.cat([branch.weight for branch in branches]),
        "inputs.bias": torch.cat([branch.bias for branch in branches]),
        "convolution.weight": theirs.conv_1d.weight,
        "convolution.bias": theirs.conv_1d.bias,
        "input_gate": theirs.rg_lru.input_gate_weight,
        "input_gate_bias": theirs.rg_lru.input_gate_bias,
        "decay_gate": theirs.rg_lru.recurrent_gate_weight,
        "decay_gate_bias": theirs.rg_lru.recurrent_gate_bias,
        "decay": theirs.rg_lru.recurrent_param,
        "out.weight": theirs.linear_out.weight,
        "out.bias": theirs.linear_out.bias,
    }
    ours.load_state_dict({f"rg_lru.{name}": value for name, value in state.items()})
    return theirs, ours


@pytest.mark.parametrize("tokens", [1, 9, 80])
@torch.no_grad()
def test_rg_lru_is_that_of_transformers(tokens: int) -> None:
    theirs, ours = released()
    x, place = torch.randn(2, tokens, 16), torch.arange(tokens)[None]
    expected = theirs(x, position_ids=place, attention_mask=None, use_cache=False)[0]
    assert_close(ours(x, torch.ones(2, tokens, dtype=torch.bool)), expected)


@pytest.mark.parametrize("left", [True, False])
@torch.no_grad()
def test_padding_changes_nothing(left: bool) -> None:
    _, ours = released()
    x, place = torch.randn(1, 40, 16), torch.arange(40)[None]
    valid = place >= 7 if left else place < 33
    assert_close(ours(x, valid)[valid], ours(x[:, valid[0]], valid[:, valid[0]])[0])


def sequential(a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    read = []
    for token in range(b.shape[1]):
        state = a[:, token] * state + b[:, token]
        read.append(state)
    return torch.stack(read, dim=1)


@pytest.mark.parametrize("tokens", [1, 2, 16, 45])
@pytest.mark.parametrize("shared", [True, False])
def test_scan_equals_token_by_token(tokens: int, shared: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(2, tokens, 1 if shared else 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, tokens, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    found = []
    for form in (scan, sequential):
        read = form(a, b, state)
        grads = torch.autograd.grad(read.square().sum(), (a, b, state), create_graph=True)
        found.append([read, *grads, *torch.autograd.grad(sum(grad.square().sum() for grad in grads), (a, b, state))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
