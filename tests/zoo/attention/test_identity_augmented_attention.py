"""Identities in the products of attention. Boix-Adserà et al. 2024, arXiv 2310.09753."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from tests.compiler.modules.bodies import body
from tests.zoo.published import build, parameters, random

pytestmark = pytest.mark.system("identity_augmented_attention")

NAME = "attention/identity_augmented_attention"
PLAIN = {"blocks__attend": {"kind": "attention", "heads": 4, "head_width": "inner"}}
BESIDE = "{kind: identity_beside, heads: 2}"
FIXED = "{kind: identity_beside, heads: 2, learned: false}"
LINEARS = f"{{query: {BESIDE}, key: {FIXED}, value: {FIXED}, out: {BESIDE}}}"
NODE = f"{{kind: attention, heads: 2, head_width: 24, scale: 0.3, linears: {LINEARS}}}"
TOKENS = torch.arange(2 * 12).reshape(2, 12) * 17 % 512


def test_two_numbers_for_each_head_and_layer() -> None:
    assert parameters(build(NAME)) - parameters(build(NAME, **PLAIN)) == 2 * 4 * 2


@torch.no_grad()
def test_zeros_are_plain_attention() -> None:
    model, plain = random(build(NAME)), build(NAME, **PLAIN)
    state = {name.replace(".linear.", "."): value for name, value in model.state_dict().items() if "gain" not in name}
    for layer in (f"layers.{number}.mixer.body" for number in range(2)):
        parts = [state.pop(f"{layer}.{role}.weight") for role in ("query", "key", "value")]
        state[f"{layer}.qkv.weight"] = torch.cat(parts)
    plain.load_state_dict(state)
    assert not torch.allclose(model(TOKENS), plain(TOKENS), atol=0.1)
    for name, parameter in model.named_parameters():
        if name.endswith("gain"):
            parameter.zero_()
    torch.testing.assert_close(model(TOKENS), plain(TOKENS), atol=1e-4, rtol=0)


@torch.no_grad()
def test_products_are_those_with_a_multiple_of_the_identity() -> None:
    """Heads by their products: ``x' (W_q' W_k + a I) x`` and ``(W_v' W_o + b I) x``."""
    model, x = body(NODE), torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))
    a = model.attention
    out = torch.zeros_like(x)
    for head in range(2):
        rows = slice(8 * head, 8 * head + 8)
        q, k, v = (getattr(a, role).linear.weight[rows] for role in ("query", "key", "value"))
        ask = q.T @ k + a.query.gain[head] * torch.eye(16)
        say = v.T @ a.out.linear.weight[:, rows].T + a.out.gain[head] * torch.eye(16)
        out += (x @ ask @ x.mT * 0.3).softmax(-1) @ x @ say
    torch.testing.assert_close(model(x), out, atol=1e-5, rtol=0)


def batch(count: int, symbols: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """AAB and ABB, and the symbol that stands twice."""
    a, b = (symbols[torch.randint(0, len(symbols), (count,), generator=generator)] for _ in range(2))
    first = torch.randint(0, 2, (count, 1), generator=generator).bool()
    three = torch.where(first, torch.stack((a, a, b), 1), torch.stack((a, b, b), 1))
    return F.pad(three, (0, 1), value=511), torch.where(first[:, 0], a, b)


def unseen(**changes: Any) -> float:
    """Accuracy on symbols that training had none of."""
    torch.manual_seed(0)
    model = build(NAME, graph__layers__times=1, **changes).train()
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        x, y = batch(128, torch.arange(100), generator)
        loss = F.cross_entropy(model(x)[:, -1], y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        x, y = batch(1000, torch.arange(300, 511), generator)
        return (model.eval()(x)[:, -1].argmax(1) == y).float().mean().item()


def test_templates_are_learned_for_symbols_that_were_never_seen() -> None:
    assert unseen() > 0.5
    assert unseen(**PLAIN) < 0.2


def test_heads_have_room_for_the_identity() -> None:
    with pytest.raises(SpecError, match="leave no room for the identity"):
        body(NODE.replace("head_width: 24", "head_width: 16"))
