"""DeepSeek-V3 at full size, and its router. DeepSeek-AI 2024, arXiv 2412.19437. (Its outputs: tests/families.)"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from search.cost.price import price
from tests.zoo.published import build, parameters, random, spec

transformers = pytest.importorskip("transformers")
DEEPSEEK = "language/deepseek_v3"
BIAS = "e_score_correction_bias"


def tiny(**changes: Any) -> Any:
    latent = {"heads": 4, "query_rank": 16, "kv_rank": 12, "rope_width": 8, "nope_width": 10, "value_width": 6}
    mixture = "blocks__sparse__channel__"
    sizes = {"interface__vocab": 99, "interface__length": 64, "dims__width": 32, "blocks__dense__channel__hidden": 48,
             "graph__layers__times": 1, "graph__layers_2__times": 2, f"{mixture}experts__count": 16,
             f"{mixture}experts__body__hidden": 16, f"{mixture}shared__hidden": 16, f"{mixture}router__k": 4,
             f"{mixture}router__groups": 4, f"{mixture}router__top_groups": 2}  # fmt: skip
    return build(
        DEEPSEEK,
        **sizes,
        **{f"blocks__latent__{field}": size for field, size in latent.items()},
        **changes,
    )


def test_rotates_neighbouring_features_as_the_published_weights_expect() -> None:
    layer = spec(DEEPSEEK).graph.node("layers").bodies["rounds.0"]
    attention = layer.nodes[0].bodies["body"].nodes[0]
    assert attention.bodies["position"].nodes[0].kind.layout == "pairs"


def test_parameters_and_balance_biases() -> None:
    ours = build(DEEPSEEK, device="meta")
    with torch.device("meta"):
        theirs = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config())
    assert parameters(ours) == parameters(theirs) == 671_026_404_352
    assert biases(ours, "balance_bias") == biases(theirs, BIAS) == 14_848


def biases(model: nn.Module, word: str) -> int:
    return sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith(word))


def test_a_token_meets_37_billion_parameters() -> None:
    cost = price(spec(DEEPSEEK), length=1, dtype="bfloat16", device="h100_sxm")
    assert cost.parameters == 671_026_404_352
    assert cost.active == pytest.approx(37e9, rel=0.02)
    expert = 3 * 7168 * 2048
    assert cost.parameters - cost.active == 58 * (256 - 8) * expert


def test_a_token_keeps_one_latent_and_one_rotated_key_a_layer() -> None:
    assert price(spec(DEEPSEEK), length=1, dtype="bfloat16", device="h100_sxm").cache_per_token == 61 * (512 + 64) * 2


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
