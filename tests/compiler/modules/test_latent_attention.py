"""Latent attention against that of `transformers`, with the same weights."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.compiler.modules.bodies import assert_close, body, under

NAMES = {
    "query_down": "q_a_proj", "query_norm": "q_a_layernorm", "query_up": "q_b_proj", "query": "q_proj",
    "kv_down": "kv_a_proj_with_mqa", "kv_norm": "kv_a_layernorm", "kv_up": "kv_b_proj", "out": "o_proj",
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0, "mscale_all_dim": 0.8, "rope_theta": 1e4,
        "original_max_position_embeddings": 8}  # fmt: skip


@pytest.mark.parametrize("rank", [None, 12])
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("yarn", [True, False])
@torch.no_grad()
def test_latent_attention_is_that_of_deepseek_v3(rank: int | None, interleaved: bool, yarn: bool) -> None:
    deepseek = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3")
    config = deepseek.DeepseekV3Config(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=rank, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6, attention_bias=True, rope_interleave=interleaved,
        max_position_embeddings=64, rope_parameters=YARN if yarn else {"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    theirs = deepseek.DeepseekV3Attention(config, 0).eval()
    scaling = "scaling: {kind: yarn, factor: 40, length: 8, mscale: 1, mscale_all: 0.8}"
    told: dict[str, Any] = {
        "heads": 4, "kv_rank": 16, "nope_width": 8, "rope_width": 4, "value_width": 6, "norm": "rms_norm",
        "position": f"{{kind: rope, layout: {'pairs' if interleaved else 'halves'}{', ' + scaling if yarn else ''}}}",
        "scale": (0.1 * 0.8 * math.log(40) + 1) ** 2 / math.sqrt(12) if yarn else 1 / math.sqrt(12),
        "bias": "true",
    }  # fmt: skip
    if rank is not None:
        told["query_rank"] = rank
    fields = ", ".join(f"{name}: {value}" for name, value in told.items())
    model = body(f"{{kind: latent_attention, {fields}}}", "token: n", 32, causal="token")
    for name, value in under(model, "latent_attention").items():
        head, _, last = name.rpartition(".")
        theirs.get_parameter(f"{NAMES[head]}.{last}").copy_(value)
    x = torch.randn(2, 13, 32)
    waves = deepseek.DeepseekV3RotaryEmbedding(config)(x, torch.arange(13)[None])
    assert_close(model(x), theirs(x, waves, None)[0])
