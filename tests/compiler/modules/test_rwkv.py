"""RWKV against the released model, and its average against its definition."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compiler.modules.rwkv import FadingAverage, one_by_one
from tests.compiler.modules.bodies import assert_close, body


@torch.no_grad()
def released(kind: str) -> tuple[Any, Any]:
    """Their module and ours with its weights."""
    rwkv: Any = pytest.importorskip("transformers.models.rwkv.modeling_rwkv")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "attention_hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    time = kind == "rwkv_time_mixing"
    theirs = (rwkv.RwkvSelfAttention if time else rwkv.RwkvFeedForward)(rwkv.RwkvConfig(**sizes), 0)
    for parameter in theirs.parameters():
        parameter.copy_(torch.randn(parameter.shape) * (0.5 if time else 0.25))
    roles = ("receptance", "key", "value") if time else ("receptance", "key")
    names = {"decay": "time_decay", "bonus": "time_first", "out.weight": "output.weight"} if time else {}
    names |= {f"{role}.weight": f"{role}.weight" for role in ("receptance", "key", "value")}
    names |= {f"shift.{role}": f"time_mix_{role}" for role in roles}
    source = dict(theirs.named_parameters())
    inner = "width: 24" if time else "hidden: 40"
    ours = body(f"{{kind: {kind}, {inner}}}", "token: n", 16, interface="padding: true", causal="token")
    ours.load_state_dict({f"{kind}.{name}": source[other].flatten() if "shift" in name else source[other]
                          for name, other in names.items()})  # fmt: skip
    return theirs, ours


@pytest.mark.parametrize("tokens", [1, 9, 80])
@pytest.mark.parametrize("kind", ["rwkv_time_mixing", "rwkv_channel_mixing"])
@torch.no_grad()
def test_rwkv_is_that_of_transformers(kind: str, tokens: int) -> None:
    theirs, ours = released(kind)
    x = torch.randn(2, tokens, 16)
    assert_close(ours(x, torch.ones(2, tokens, dtype=torch.bool)), theirs(x)[0])


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("kind", ["rwkv_time_mixing", "rwkv_channel_mixing"])
@torch.no_grad()
def test_padding_changes_nothing(kind: str, left: bool) -> None:
    _, ours = released(kind)
    x, place = torch.randn(1, 40, 16), torch.arange(40)[None]
    valid = place >= 7 if left else place < 33
    assert_close(ours(x, valid)[valid], ours(x[:, valid[0]], valid[:, valid[0]])[0])


def given(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(2, 70, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    decay, bonus = torch.linspace(-5, 3, 5), torch.randn(5, generator=generator)
    return [x.to(dtype).requires_grad_() for x in (3 * k, v, decay, bonus)]


def test_the_scan_equals_token_by_token() -> None:
    inputs = given(torch.float64)
    found = []
    for read in (FadingAverage()(*inputs, None), one_by_one(*inputs)):
        found.append([read, *torch.autograd.grad((read * torch.arange(5)).square().sum(), inputs)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_large_keys_stay_numbers() -> None:
    k, v, decay, bonus = given(torch.float32)
    read = FadingAverage()(k + 1000, v, decay, bonus, None)
    torch.testing.assert_close(read, FadingAverage()(k, v, decay, bonus, None), atol=1e-3, rtol=1e-3)
    read.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (k, v, decay, bonus))
