"""Attention's options against what `transformers` computes from the same queries, keys and values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compiler.modules.attend import Attend, Temperature
from tests.compiler.modules.bodies import assert_close, body, under


def attend(options: str, *, causal: str = "token", axes: str = "token: n", heads: str = "heads: 4, kv_heads: 2") -> Any:
    model = body(f"{{kind: attention, {heads}, {options}}}", axes, 32, causal=causal)
    return next(module for module in model.modules() if isinstance(module, Attend))


def parts(count: int, kv_heads: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values ``[batch, tokens, heads, width]``."""
    return torch.randn(2, count, 4, 8), torch.randn(2, count, kv_heads, 8), torch.randn(2, count, kv_heads, 8)


def future(count: int, window: int | None = None) -> Tensor:
    """``[1, 1, queries, memory]``: minus infinity where a token may not read."""
    distance = torch.arange(count)[:, None] - torch.arange(count)
    seen = (distance >= 0) & (distance < (window or count))
    return torch.zeros(1, 1, count, count).masked_fill(~seen, float("-inf"))


@pytest.mark.parametrize("window", [None, 4])
@torch.no_grad()
def test_sinks_are_those_of_gpt_oss(window: int | None) -> None:
    oss = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")
    leaf = attend(f"sinks: true, scale: 0.3, window: {window or 'null'}")
    q, k, v = parts(11)
    module = SimpleNamespace(sinks=leaf.sinks, num_key_value_groups=2, training=False)
    theirs, _ = oss.eager_attention_forward(
        module, *(x.transpose(1, 2) for x in (q, k, v)), future(11, window), scaling=0.3
    )
    assert_close(leaf(q, k, v), theirs.flatten(2))
    by_hand = attend(f"sinks: true, scale: 0.3, softcap: 1e6, window: {window or 'null'}")
    by_hand.sinks.copy_(leaf.sinks)
    assert_close(by_hand(q, k, v), theirs.flatten(2))


def test_sinks_learn_whatever_computes_them() -> None:
    fused, by_hand = attend("sinks: true"), attend("sinks: true, softcap: 1e6")
    q, k, v = parts(9)
    grads = []
    for leaf in (fused, by_hand):
        leaf.sinks.data.copy_(torch.tensor([0.5, -1.0, 2.0, 0.0]))
        leaf(q, k, v).square().sum().backward()
        grads.append(leaf.sinks.grad)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-4, rtol=1e-4)
    assert grads[0].abs().min() > 1e-4


@pytest.mark.parametrize("options", ["", ", sinks: true", ", softcap: 3.0"])
@pytest.mark.parametrize("count", [7, 8, 9, 24, 30])
def test_windows_in_bands_are_windows_under_a_mask(count: int, options: str) -> None:
    leaf = attend(f"window: 4{options}")
    parameters = [p.requires_grad_() for p in parts(count)] + list(leaf.parameters())
    q, k, v = (x.transpose(1, 2) for x in parameters[:3])
    found = leaf.bands(q, k, v, 4, 0.0)
    expected = leaf.read(q, k, v, mask=leaf.mask(q, k, None, None, None, None, None))
    assert_close(found, expected)
    weigh = torch.randn_like(found)
    for a, b in zip(torch.autograd.grad((found * weigh).sum(), parameters),
                    torch.autograd.grad((expected * weigh).sum(), parameters), strict=True):  # fmt: skip
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [3, 5, 6, 14, 15])
@torch.no_grad()
def test_a_token_reads_its_own_chunk(count: int) -> None:
    leaf = attend("chunk: 5")
    q, k, v = parts(count)
    place = torch.arange(count)
    seen = (place[:, None] >= place) & (place[:, None] // 5 == place // 5)
    expected = nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=seen, enable_gqa=True
    )
    assert_close(leaf(q, k, v), expected.transpose(1, 2).flatten(2))


@torch.no_grad()
def test_chunks_of_padded_tokens_are_those_of_transformers() -> None:
    masking = pytest.importorskip("transformers.masking_utils")
    leaf = attend("chunk: 4")
    q, k, v = parts(12)
    valid = torch.arange(12) >= torch.tensor([[0], [3]])
    allow = masking.and_masks(
        masking.chunked_causal_mask_function(4, torch.tensor([0, 3])), masking.padding_mask_function(valid)
    )
    seen = torch.tensor([[[[bool(allow(b, 0, torch.tensor(i), torch.tensor(j))) for j in range(12)]
                           for i in range(12)]] for b in range(2)])  # fmt: skip
    expected = nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=seen, enable_gqa=True
    )
    assert_close(leaf(q, k, v, valid=valid)[valid], expected.transpose(1, 2).flatten(2)[valid])


@torch.no_grad()
def test_queries_are_sharpened_as_in_llama_4_and_ministral() -> None:
    ministral = pytest.importorskip("transformers.models.ministral3.modeling_ministral3")
    model = body("{kind: attention, heads: 4, temperature: {factor: 0.3, length: 5}}", "token: n", 32, causal="token")
    leaf = next(module for module in model.modules() if isinstance(module, Temperature))
    q = torch.randn(1, 23, 4, 8)
    scale = ministral.get_llama_4_attn_scale(torch.arange(23)[None], 0.3, 5)
    assert_close(leaf(q, None), q * scale.transpose(1, 2))
    model = body("{kind: attention, heads: 4, temperature: {factor: 0.3, length: 5, offset: 1}}", "token: n", 32)
    leaf = next(module for module in model.modules() if isinstance(module, Temperature))
    places = torch.arange(23)
    scale = torch.log1p(torch.floor((places.float() + 1.0) / 5)) * 0.3 + 1.0
    assert_close(leaf(q, None), q * scale[:, None, None])


@pytest.mark.parametrize("window", [4, 20])
@torch.no_grad()
def test_windows_that_reach_all_are_none(window: int) -> None:
    leaf, plain = attend(f"window: {window}"), attend("softcap: null")
    q, k, v = parts(4)
    assert torch.equal(leaf(q, k, v), plain(q, k, v))


@torch.no_grad()
def test_a_window_both_ways_is_that_of_modernbert() -> None:
    """A token reads ``local_attention // 2`` tokens on each side: a window of one more."""
    masking = pytest.importorskip("transformers.masking_utils")
    leaf = attend("window: 4", causal="")
    q, k, v = parts(12)
    allow = masking.sliding_window_bidirectional_mask_function(6 // 2)
    seen = torch.tensor([[bool(allow(0, 0, torch.tensor(i), torch.tensor(j))) for j in range(12)] for i in range(12)])
    expected = nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), attn_mask=seen, enable_gqa=True
    )
    assert_close(leaf(q, k, v), expected.transpose(1, 2).flatten(2))


@torch.no_grad()
def test_a_gate_multiplies_what_is_read_as_in_qwen3_next() -> None:
    model = body("{kind: attention, heads: 2, gate: sigmoid}", "token: n", 16, causal="token")
    state, x = under(model, "attention"), torch.randn(2, 9, 16)
    q, k, v, gate = (x @ state["qkv.weight"].T).chunk(4, dim=-1)
    heads = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (q, k, v))
    read = nn.functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
    assert_close(model(x), (read * gate.sigmoid()) @ state["out.weight"].T)


@torch.no_grad()
def test_norms_of_each_head_of_its_own_are_those_of_stablelm() -> None:
    stablelm = pytest.importorskip("transformers.models.stablelm.modeling_stablelm")
    model = body(
        "{kind: attention, heads: 4, kv_heads: 2, qk_norm_over: heads, "
        "qk_norm: {kind: layer_norm, bias: false, group_size: head_width}}", "token: n", 32,
    )  # fmt: skip
    state, x = under(model, "attention"), torch.randn(2, 9, 32)
    q, k, v = (x @ state["qkv.weight"].T).split((32, 16, 16), dim=-1)
    turned = []
    for part, name, heads in ((q, "query_norm.weight", 4), (k, "key_norm.weight", 2)):
        norm = stablelm.StableLmLayerNormPerHead(8, heads)
        for head, weight in zip(norm.norms, state[name].unflatten(0, (heads, 8)), strict=True):
            head.weight.copy_(weight)
        turned.append(norm(part.unflatten(-1, (heads, 8)).transpose(1, 2)))
    read = nn.functional.scaled_dot_product_attention(
        turned[0], turned[1], v.unflatten(-1, (2, 8)).transpose(1, 2), enable_gqa=True
    )
    assert_close(model(x), read.transpose(1, 2).flatten(2) @ state["out.weight"].T)


@torch.no_grad()
def test_a_norm_after_the_rotation_is_that_of_llama_4() -> None:
    llama4 = pytest.importorskip("transformers.models.llama4.modeling_llama4")
    norm = "{kind: rms_norm, affine: false, eps: 1e-5}"
    model = body(f"{{kind: attention, heads: 4, qk_norm: {norm}, qk_norm_place: after, "
                 "position: {kind: rope, layout: pairs}}", "token: n", 32, causal="token")  # fmt: skip
    state, x = under(model, "attention"), torch.randn(2, 9, 32)
    q, k, v = ((x @ part.T).unflatten(-1, (4, 8)) for part in state["qkv.weight"].chunk(3))
    angles = torch.arange(9.0)[:, None] * (1.0 / 10000 ** (torch.arange(0, 8, 2) / 8))
    q, k = llama4.apply_rotary_emb(q, k, torch.polar(torch.ones_like(angles), angles)[None])
    l2 = llama4.Llama4TextL2Norm(1e-5)
    heads = (part.transpose(1, 2) for part in (l2(q), l2(k), v))
    read = nn.functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)
    assert_close(model(x), read @ state["out.weight"].T)
