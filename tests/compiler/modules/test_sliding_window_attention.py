"""Sliding-window attention against the released one, and against all pairs with a mask."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from archspec.errors import SpecError
from compiler.logical import logical
from tests.compiler.modules.bodies import assert_close, body, by_pairs, under
from tests.models import perturbed


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@torch.no_grad()
def test_sliding_window_attention_is_that_of_transformers(share: float) -> None:
    theirs: Any = pytest.importorskip("transformers.models.longformer.modeling_longformer")
    config = theirs.LongformerConfig(hidden_size=16, num_attention_heads=2, attention_window=[6], num_hidden_layers=1)
    attention = perturbed(theirs.LongformerSelfAttention(config, 0)).eval()
    ours = body(
        "{name: a, kind: sliding_window_attention, heads: 2, window: 3, label: far, linears: {out: no_matrix}}",
        interface="labels: {far: 2}, padding: true",
    )
    views = logical(ours)
    for name, value in attention.state_dict().items():
        way, _, kind = name.rpartition(".")
        views[f"a.{'_'.join(reversed(way.split('_')))}.{kind}"].copy_(value)
    x, valid = torch.randn(3, 36, 16), torch.arange(36) < torch.tensor([[36], [23], [5]])
    label = (torch.rand(3, 36) < share).long()
    mask = torch.where(valid, 1e4 * label, -1e4)
    expected = attention(
        x, mask, is_index_masked=mask < 0, is_index_global_attn=mask > 0, is_global_attn=bool((mask > 0).any())
    )[0]
    assert_close(ours(x, label, valid)[valid], expected[valid])


@pytest.mark.parametrize(("window", "tokens"), [(3, 12), (5, 12), (1, 7), (12, 12), (20, 12), (2, 1)])
@torch.no_grad()
def test_a_window_is_a_mask_of_all_pairs(window: int, tokens: int) -> None:
    model = body(
        f"{{name: a, kind: sliding_window_attention, heads: 2, window: {window}, label: far, separate: false, "
        "bias: false}",
        interface="labels: {far: 2}",
    )
    x, label = torch.randn(2, tokens, 16), torch.zeros(2, tokens, dtype=torch.long)
    label[1, : tokens // 2 : 2] = 1
    place = torch.arange(tokens)
    near = (place[:, None] - place).abs() <= window
    allowed = near | (label[:, None] > 0) | (label[:, :, None] > 0)
    assert_close(model(x, label), by_pairs(under(model, "a"), x, 2, allowed=allowed[:, None]))


def test_a_window_costs_less_than_all_pairs() -> None:
    model = body("{kind: sliding_window_attention, heads: 2, window: 2}")
    counts = []
    for tokens in (64, 128):
        with FlopCounterMode(display=False) as counter:
            model(torch.randn(1, tokens, 16))
        counts.append(counter.get_total_flops())
    assert counts[1] == 2 * counts[0]


@torch.no_grad()
def test_more_global_tokens_than_the_limit_are_refused() -> None:
    node = "{kind: sliding_window_attention, heads: 2, window: 2, label: far, limit: 2}"
    model = body(node, interface="labels: {far: 2}")
    x, label = torch.randn(2, 12, 16), torch.zeros(2, 12, dtype=torch.long)
    label[:, :2] = 1
    model(x, label)
    label[1, 7] = 1
    with pytest.raises(ValueError, match="3 tokens of a sequence are global; the limit is 2"):
        model(x, label)


def test_refusals() -> None:
    for fields, causal, cause in (("label: speaker", "", "carry no label"), ("window: 2", "token", "later ones")):
        fields = fields if "window" in fields else f"{fields}, window: 2"
        with pytest.raises(SpecError, match=cause):
            body(f"{{kind: sliding_window_attention, heads: 2, {fields}}}", causal=causal)


def test_a_label_is_no_word_of_python() -> None:
    with pytest.raises(SpecError, match="'global' is no name for a label"):
        body("{kind: mlp, ratio: 1}", interface="labels: {global: 2}")
