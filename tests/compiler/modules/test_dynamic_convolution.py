"""Dynamic convolution against the released mixed attention, and each sequence alone."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.compiler.modules.bodies import assert_close, body, under
from tests.models import perturbed

# Span-based dynamic convolution beside attention; both read one query.
MIXED = """[
  {name: query, from: x, kind: project, width: 8, bias: true},
  {name: attended, kind: attention, heads: 2, bias: true, linears: {query: no_matrix, out: no_matrix}, memory: x},
  {name: around, from: x, kind: depthwise_convolution, size: 5, bias: false},
  {name: span, kind: project, width: 8, bias: true},
  {name: both, from: [query, span], kind: combine, how: multiply},
  {name: values, from: x, kind: project, width: 8, bias: true},
  {name: convolved, from: [values, both], kind: dynamic_convolution, heads: 2, size: 5},
  {from: [attended, convolved], kind: combine, how: concat}]"""
CONVBERT = {
    "query.linear": ["query"],
    "attended.kv": ["key", "value"],
    "span.linear": ["key_conv_attn_layer.pointwise"],
    "values.linear": ["conv_out_layer"],
    "convolved.taps": ["conv_kernel_layer"],
}


@torch.no_grad()
def test_span_based_dynamic_convolution_is_that_of_transformers() -> None:
    theirs: Any = pytest.importorskip("transformers.models.convbert.modeling_convbert")
    config = theirs.ConvBertConfig(hidden_size=16, num_attention_heads=4, head_ratio=2, conv_kernel_size=5)
    theirs = perturbed(theirs.ConvBertSelfAttention(config)).eval()
    ours = body(MIXED)
    state = theirs.state_dict()
    for name, parts in CONVBERT.items():
        for kind in ("weight", "bias"):
            if name == "span.linear" and kind == "bias":
                value = state["key_conv_attn_layer.bias"]
            else:
                value = torch.cat([state[f"{part}.{kind}"] for part in parts])
            ours.get_parameter(f"{name}.{kind}").copy_(value.view_as(ours.get_parameter(f"{name}.{kind}")))
    ours.get_parameter("around.convolution.weight").copy_(state["key_conv_attn_layer.depthwise.weight"])
    x = torch.randn(3, 12, 16)
    assert_close(ours(x), theirs(x)[0])


@torch.no_grad()
def test_grouped_linear_is_that_of_transformers() -> None:
    theirs: Any = pytest.importorskip("transformers.models.convbert.modeling_convbert")
    layer = theirs.GroupedLinearLayer(16, 32, 4)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    ours = body("{name: m, kind: project, width: 32, bias: true, linear: {kind: block_diagonal, groups: 4}}")
    ours.load_state_dict({f"m.linear.{name}": value for name, value in layer.state_dict().items()})
    x = torch.randn(3, 12, 16)
    assert_close(ours(x), layer(x))


@torch.no_grad()
def test_padding_is_silence() -> None:
    padded, plain = (body(MIXED, interface=f"padding: {flag}") for flag in ("true", "false"))
    x, lengths = torch.randn(3, 12, 16), torch.tensor([12, 7, 1])
    found = padded(x, torch.arange(12) < lengths[:, None])
    for sample, length in enumerate(lengths.tolist()):
        assert_close(found[sample, :length], plain(x[sample : sample + 1, :length])[0])


@torch.no_grad()
def test_dynamic_convolution_is_a_sum_over_taps() -> None:
    model = body("{kind: dynamic_convolution, heads: 2, size: 3}", causal="token")
    state, x = under(model, "dynamic_convolution"), torch.randn(2, 12, 16)
    taps = (x @ state["taps.weight"].T + state["taps.bias"]).unflatten(-1, (2, 3)).softmax(-1)
    expected = torch.zeros_like(x)
    for place in range(12):
        for tap in range(3):
            if place + tap >= 2:
                weights = taps[:, place, :, tap].repeat_interleave(8, dim=1)
                expected[:, place] += weights * x[:, place + tap - 2]
    assert_close(model(x), expected)
