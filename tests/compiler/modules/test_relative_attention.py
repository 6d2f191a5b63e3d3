"""Relative attention, fewer tokens and as many again, against the released funnel."""

from typing import Any

import pytest
import torch

from archspec.errors import SpecError
from compiler.logical import logical
from tests.compiler.modules.bodies import assert_close, body
from tests.models import perturbed

NAMES = {
    "q_head.weight": "query.weight", "k_head.weight": "key.weight", "k_head.bias": "key.bias",
    "v_head.weight": "value.weight", "v_head.bias": "value.bias", "post_proj.weight": "out.weight",
    "post_proj.bias": "out.bias", "r_w_bias": "content_bias", "r_r_bias": "position_bias", "r_s_bias": "segment_bias",
    "seg_embed": "segments", "r_kernel": "position.weight",
}  # fmt: skip
# Two layers of the second block: the first pools what asks, or all.
FUNNEL = """[
  {{name: far, kind: sinusoidal_distances, reach: 64, width: 16}},
  {{name: low, from: x, kind: downsample, how: {how}, lone_first: {lone}, truncate: {truncate}, real: all}},
  {{name: first, from: {read}, kind: residual, norm: layer_norm, place: post, body: {fields} }},
  {{name: second, from: first, kind: residual, norm: layer_norm, place: post, body: {fields} }},
  {{name: high, from: [second, x], kind: upsample, lone_first: {lone}}}]"""


@pytest.mark.parametrize("kind", ["relative_shift", "factorized"])
@pytest.mark.parametrize("tokens", [12, 13, 5, 4, 3])
@pytest.mark.parametrize(("lone", "truncate"), [(True, True), (True, False), (False, False)])
@pytest.mark.parametrize("queries_only", [True, False])
@pytest.mark.parametrize("how", ["mean", "max"])
@torch.no_grad()
def test_a_pooled_block_is_that_of_transformers(
    kind: str, tokens: int, lone: bool, truncate: bool, queries_only: bool, how: str
) -> None:
    theirs: Any = pytest.importorskip("transformers.models.funnel.modeling_funnel")
    config = theirs.FunnelConfig(
        d_model=16, n_head=2, d_head=8, d_inner=4, block_sizes=[0, 2], attention_type=kind, separate_cls=lone,
        truncate_seq=truncate, pool_q_only=queries_only, pooling_type=how, layer_norm_eps=1e-5,
    )  # fmt: skip
    structure = theirs.FunnelAttentionStructure(config).eval()
    layers = [perturbed(theirs.FunnelRelMultiheadAttention(config, 1), seed).eval() for seed in (1, 2)]
    x, label = torch.randn(3, tokens, 16), torch.randint(0, 3, (3, tokens))
    valid = torch.arange(tokens) < torch.tensor([[tokens], [max(2, tokens - 2)], [2]])
    known = structure.init_attention_inputs(x, valid.to(x.dtype), label)
    low, known = structure.pre_attention_pooling(x, known)
    wide = x if queries_only else low
    first = layers[0](low, wide, wide, known)[0]
    second = layers[1](first, first, first, structure.post_attention_pooling(known))[0]
    fields = (
        f"{{kind: relative_attention, heads: 2, positions: far, label: kind, joker: 2, lone_first: {lone}, "
        "biases: {query: false}}"
    )
    read = "[low, x]" if queries_only else "low"
    text = FUNNEL.format(how=how, lone=lone, truncate=truncate, fields=fields, read=read).lower()
    ours = body(text, interface="labels: {kind: 3}, padding: true")
    views = logical(ours)
    for name, layer in zip(("first", "second"), layers, strict=True):
        for part, value in layer.state_dict().items():
            if part.startswith("layer_norm"):
                views[f"{name}.norm_after.{part.split('.')[1]}"].copy_(value)
            else:
                value = value.flatten(1).T if part == "r_kernel" else value
                views[f"{name}.body.{NAMES[part]}"].copy_(value)
    assert_close(ours(x, label, valid), theirs.upsample(second, 2, tokens, lone, truncate))


@torch.no_grad()
def test_padding_joins_no_group() -> None:
    node = "[{name: low, kind: downsample, lone_first: true}, {from: [low, x], kind: upsample, lone_first: true}]"
    padded, plain = body(node, interface="padding: true"), body(node)
    x, lengths = torch.randn(3, 12, 16), torch.tensor([12, 7, 2])
    found = padded(x, torch.arange(12) < lengths[:, None])
    for sample, length in enumerate(lengths.tolist()):
        assert_close(found[sample, :length], plain(x[sample : sample + 1, :length])[0])


@pytest.mark.parametrize(
    ("node", "cause"),
    [
        ("{kind: downsample, truncate: true}", "no place too much"),
        ("{kind: downsample}, {from: [x, downsample], kind: relative_attention, heads: 2, positions: far}", "between"),
        ("{kind: relative_attention, heads: 2, positions: x}", "no stream of distances"),
        ("{kind: relative_attention, heads: 2, positions: far, label: kind}", "carries no label 'kind'"),
    ],
)
def test_refusals(node: str, cause: str) -> None:
    far = "{name: far, kind: sinusoidal_distances, reach: 4, width: 8}"
    with pytest.raises(SpecError, match=cause):
        body(f"[{far}, {node.replace('{kind', '{from: x, kind', 1)}]")
