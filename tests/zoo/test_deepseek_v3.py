"""DeepSeek-V3 against transformers. DeepSeek-AI 2024, arXiv 2412.19437."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.cost.price import price
from tests.zoo.published import assert_same, build, copy, parameters, random, spec

transformers = pytest.importorskip("transformers")
BIAS = "e_score_correction_bias"
ATTENTION = {
    "mixer.norm": "input_layernorm",
    "mixer.body.query_down": "self_attn.q_a_proj",
    "mixer.body.query_norm": "self_attn.q_a_layernorm",
    "mixer.body.query_up": "self_attn.q_b_proj",
    "mixer.body.kv_down": "self_attn.kv_a_proj_with_mqa",
    "mixer.body.kv_norm": "self_attn.kv_a_layernorm",
    "mixer.body.kv_up": "self_attn.kv_b_proj",
    "mixer.body.out": "self_attn.o_proj",
    "channel.norm": "post_attention_layernorm",
}
DENSE = {"channel.body.gate_up": "mlp.gate_proj mlp.up_proj", "channel.body.down": "mlp.down_proj"}
SPARSE = {
    "channel.body.router": "mlp.gate",
    "channel.body.experts.up.weight": "mlp.experts.gate_up_proj",
    "channel.body.experts.down.weight": "mlp.experts.down_proj",
    "channel.body.shared.gate_up": "mlp.shared_experts.gate_proj mlp.shared_experts.up_proj",
    "channel.body.shared.down": "mlp.shared_experts.down_proj",
}
# 3 layers, the first dense; 16 experts in 4 groups, of which a token meets 4 in the 2 best groups
TINY = {
    "vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 12, "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 10, "v_head_dim": 6, "n_routed_experts": 16, "n_group": 4, "topk_group": 2,
    "num_experts_per_tok": 4, "first_k_dense_replace": 1, "max_position_embeddings": 64,
}  # fmt: skip


def tiny(**changes: Any) -> Any:
    mla = {"heads": 4, "query_rank": 16, "kv_rank": 12, "rope_width": 8, "nope_width": 10, "value_width": 6}
    mixture = "blocks__sparse__channel__"
    sizes = {"interface__vocab": 99, "interface__length": 64, "dims__width": 32, "blocks__dense__channel__hidden": 48,
             "graph__dense_layers__times": 1, "graph__sparse_layers__times": 2, f"{mixture}experts__count": 16,
             f"{mixture}experts__body__hidden": 16, f"{mixture}shared__hidden": 16, f"{mixture}router__k": 4,
             f"{mixture}router__groups": 4, f"{mixture}router__top_groups": 2}  # fmt: skip
    return build("deepseek_v3", **sizes, **{f"blocks__mla__{field}": size for field, size in mla.items()}, **changes)


def names() -> dict[str, str]:
    """Our names -> theirs."""
    found = {"token_embedding": "model.embed_tokens", "rms_norm": "model.norm", "lm_head": "lm_head"}
    for ours, number, layer in (
        ("dense_layers.0", 0, DENSE),
        ("sparse_layers.0", 1, SPARSE),
        ("sparse_layers.1", 2, SPARSE),
    ):
        for a, b in (ATTENTION | layer).items():
            found[f"{ours}.{a}"] = " ".join(f"model.layers.{number}.{part}" for part in b.split())
    return found


@torch.no_grad()
def transplant(theirs: nn.Module, ours: nn.Module) -> None:
    """Their weights and balance biases in our model; experts' matrices are ``[inputs, outputs]`` here."""
    weights = dict(theirs.named_parameters())
    copy(ours, {name: p.transpose(1, 2) if ".experts." in name else p for name, p in weights.items()}, names())
    buffers = dict(theirs.named_buffers())
    for number in (0, 1):
        bias = ours.get_buffer(f"sparse_layers.{number}.channel.body.router.choose.balance_bias")
        bias.copy_(buffers[f"model.layers.{number + 1}.mlp.gate.{BIAS}"])


@pytest.mark.parametrize("bias", [0.0, 0.3])
@torch.no_grad()
def test_computes_what_transformers_computes(bias: float) -> None:
    """Latent attention, groups of experts by the sum of their two best, sigmoid weights, the shared expert."""
    theirs = random(transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**TINY)))
    for name, buffer in theirs.named_buffers():
        if name.endswith(BIAS):
            buffer.normal_(0, 1, generator=torch.Generator().manual_seed(1)).mul_(bias)
    ours = tiny()
    transplant(theirs, ours)
    tokens = torch.randint(0, 99, (2, 50), generator=torch.Generator().manual_seed(2))
    assert_same(ours(tokens), theirs(tokens).logits, 1e-5)


def test_rotates_neighbouring_features_as_the_published_weights_expect() -> None:
    layer = spec("deepseek_v3").graph.node("dense_layers").bodies["rounds.0"]
    attention = layer.nodes[0].bodies["body"].nodes[0]
    assert attention.bodies["position"].nodes[0].kind.layout == "pairs"


def test_parameters_and_balance_biases() -> None:
    ours = build("deepseek_v3", device="meta")
    with torch.device("meta"):
        theirs = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config())
    assert parameters(ours) == parameters(theirs) == 671_026_404_352
    assert biases(ours, "balance_bias") == biases(theirs, BIAS) == 14_848


def biases(model: nn.Module, word: str) -> int:
    return sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith(word))


def test_a_token_meets_37_billion_parameters() -> None:
    cost = price(spec("deepseek_v3"), length=1, dtype="bfloat16", device="h100_sxm")
    assert cost.parameters == 671_026_404_352
    assert cost.active == pytest.approx(37e9, rel=0.02)
    expert = 3 * 7168 * 2048
    assert cost.parameters - cost.active == 58 * (256 - 8) * expert


def test_a_token_keeps_one_latent_and_one_rotated_key_a_layer() -> None:
    assert (
        price(spec("deepseek_v3"), length=1, dtype="bfloat16", device="h100_sxm").cache_per_token == 61 * (512 + 64) * 2
    )


@torch.no_grad()
def test_balance_bias_chooses_but_does_not_weigh() -> None:
    """A bias that lifts all experts alike changes nothing."""
    model = random(tiny())
    tokens: Tensor = torch.arange(40)[None]
    before = model(tokens)
    for name, buffer in model.named_buffers():
        if name.endswith("balance_bias"):
            buffer += 5
    torch.testing.assert_close(model(tokens), before, atol=1e-6, rtol=0)
    for name, buffer in model.named_buffers():
        if name.endswith("balance_bias"):
            buffer[:8] += 1  # two of the four groups
    assert not torch.allclose(model(tokens), before, atol=1e-2)
