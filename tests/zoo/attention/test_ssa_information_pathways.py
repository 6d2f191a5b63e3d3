"""Stochastically subsampled self-attention. Hussain, Zaki and Subramanian 2023, arXiv 2306.01705."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from compiler.ensemble import ensemble
from compiler.modules import attend
from search.cost.price import price
from tests.compiler.modules.bodies import body
from tests.zoo.published import build, random, spec

pytestmark = pytest.mark.system("ssa_information_pathways")

NAME = "attention/ssa_information_pathways"
LAYER = "blocks__layer__mixer__subsample"
TOKENS = torch.arange(2 * 64).reshape(2, 64) * 5 % 256


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Numbers of queries and keys of all attentions that are computed."""
    seen: list[tuple[int, int]] = []
    kernel = attend.attention

    def watched(q: Tensor, k: Tensor, *rest: Any, **named: Any) -> Tensor:
        seen.append((q.shape[2], k.shape[2]))
        return kernel(q, k, *rest, **named)

    monkeypatch.setattr(attend, "attention", watched)
    return seen


@pytest.mark.parametrize("ratio", [4, 8])
@torch.no_grad()
def test_training_reads_a_part_and_inference_all(ratio: int, products: list[tuple[int, int]]) -> None:
    model = build(NAME, dims__ratio=ratio)
    model.train()(TOKENS)
    assert products == [(64, 64 // ratio)] * 2
    products.clear()
    model.eval()(TOKENS)
    assert products == [(64, 64)] * 2
    products.clear()
    build(NAME, **{LAYER: {"ratio": ratio, "spread": 0.1}}).train()(TOKENS)
    assert products == [(64 // ratio, 64 // ratio)] * 2 * ratio


def test_training_costs_less() -> None:
    dense, sparse = (price(spec(NAME, dims__ratio=ratio), length=128, device="l4") for ratio in (1, 4))
    assert dense.forward == sparse.forward
    scores = 3 * 2 * 2 * 2 * 128 * 128 * 64  # forward and backward, layers, products, multiply and add
    assert dense.training_step - sparse.training_step >= scores * 3 // 4


@torch.no_grad()
def test_a_ratio_of_one_is_dense() -> None:
    model, dense = (random(build(NAME, **{LAYER: value})) for value in ({"ratio": 1}, None))
    for mode in (True, False):
        assert torch.equal(model.train(mode)(TOKENS), dense.train(mode)(TOKENS))


@torch.no_grad()
def test_each_layer_and_step_reads_other_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Tensor] = []
    draw = attend.draw

    def watched(*rest: Any, **named: Any) -> Any:
        for rows, chosen in draw(*rest, **named):
            drawn.append(chosen)
            yield rows, chosen

    monkeypatch.setattr(attend, "draw", watched)
    model = random(build(NAME)).train()
    first, second = model(TOKENS), model(TOKENS)
    assert not torch.allclose(first, second, atol=1e-2)
    assert len({tuple(chosen.tolist()) for chosen in drawn}) == 4
    assert all(chosen[0] == 0 and (chosen.diff() > 0).all() for chosen in drawn)


@pytest.mark.parametrize("spread", ["", ", spread: 0.0"])
@torch.no_grad()
def test_training_is_attention_with_the_others_masked(spread: str) -> None:
    node = "{kind: attention, heads: 2, position: rope, subsample: {ratio: 4%s}}" % spread  # noqa: UP031
    model, x = body(node, "token: 16", causal="token"), torch.randn(2, 16, 16)
    torch.manual_seed(5)
    got = model.train()(x)
    torch.manual_seed(5)
    part = model.attention
    runs = attend.draw(part.attend.subsample, 16, 16, causal=True, device=x.device)
    seen = torch.zeros(16, 16, dtype=torch.bool)
    for rows, chosen in runs:
        seen[rows] |= (torch.arange(16)[:, None] == chosen).any(1)
    q, k, v = part.qkv(x).unflatten(-1, (3, 2, 8)).unbind(2)
    q, k = part.position(q, k, None, None)
    q, k, v = (y.transpose(1, 2) for y in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen & torch.ones(16, 16).tril().bool())
    torch.testing.assert_close(got, part.out(y.transpose(1, 2).flatten(2)), atol=1e-5, rtol=0)


@torch.no_grad()
def test_draws_make_an_ensemble() -> None:
    model = random(build(NAME)).eval()
    torch.manual_seed(0)
    first = ensemble(model, TOKENS, samples=4)
    second = ensemble(model, TOKENS, samples=4)
    assert not torch.allclose(first, second, atol=1e-3)
    whole = ensemble(model, TOKENS, samples=64)
    assert (whole - second).square().mean() < (first - second).square().mean()
    assert torch.equal(model(TOKENS), model(TOKENS))  # none is drawn after
    torch.manual_seed(1)
    one = ensemble(model, TOKENS, samples=1)
    torch.manual_seed(1)
    assert torch.equal(one, model.train()(TOKENS))  # there is no dropout here
    with pytest.raises(ValueError, match="nothing is drawn"):
        ensemble(build(NAME, dims__ratio=1), TOKENS)


def test_no_windows_of_a_part() -> None:
    with pytest.raises(SpecError, match="a window or chunks, and a part of the memory"):
        body("{kind: attention, heads: 2, window: 4, subsample: {ratio: 2}}", causal="token")
