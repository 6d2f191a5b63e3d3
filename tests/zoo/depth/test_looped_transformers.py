"""Looped transformers. Yang et al. 2024, arXiv 2311.12424."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.cost.price import price
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("looped_transformers")

NAME = "depth/looped_transformers"
EXAMPLES = torch.randn(2, 82, 20, generator=torch.Generator().manual_seed(0))
BLOCK = 12 * 256**2 + 13 * 256  # of GPT-2, with its biases and norms


def layer(state: dict[str, Tensor], prefix: str) -> nn.Module:
    """A layer as torch has it, with our weights."""
    width = state[f"{prefix}.mixer.norm.weight"].numel()
    gelu = partial(F.gelu, approximate="tanh")
    theirs = nn.TransformerEncoderLayer(width, 8, 4 * width, 0.0, gelu, batch_first=True, norm_first=True)
    names = {
        "self_attn.in_proj_": "mixer.body.qkv.", "self_attn.out_proj.": "mixer.body.out.", "norm1.": "mixer.norm.",
        "linear1.": "channel.body.up.", "linear2.": "channel.body.down.", "norm2.": "channel.norm.",
    }  # fmt: skip
    theirs.load_state_dict(
        {a + kind: state[f"{prefix}.{b}{kind}"] for a, b in names.items() for kind in ("weight", "bias")}
    )
    return theirs.eval()


@torch.no_grad()
def test_a_round_reads_the_last_output_plus_the_examples() -> None:
    model = random(build(NAME, dims__rounds=3))
    state = model.state_dict()
    block = layer(state, "loop.0.layer.body")
    mask = nn.Transformer.generate_square_subsequent_mask(82)
    embedded = F.linear(EXAMPLES, state["read.linear.weight"], state["read.linear.bias"])
    output = torch.zeros_like(embedded)
    for _ in range(3):
        placed = output + embedded + state["loop.0.learned_position.weight"]
        output = F.layer_norm(
            block(placed, src_mask=mask), (256,), *(state[f"loop.0.layer_norm.{n}"] for n in ("weight", "bias"))
        )
    expected = F.linear(output, state["answer.linear.weight"], state["answer.linear.bias"])
    torch.testing.assert_close(model(EXAMPLES), expected, atol=1e-4, rtol=1e-4)


def test_one_block_for_all_rounds_has_a_twelfth_of_the_parameters_and_the_same_operations() -> None:
    stacked = {"dims__rounds": 12, "graph__loop__kind": "repeat", "graph__loop__history": "last"}
    looped, deep = spec(NAME, dims__rounds=12), spec(NAME, **stacked)
    model, other = build(NAME, dims__rounds=12), build(NAME, **stacked)
    blocks = [p.numel() for name, p in model.named_parameters() if ".layer." in name]
    assert sum(blocks) == BLOCK == 789_760
    assert sum(p.numel() for name, p in other.named_parameters() if ".layer." in name) == 12 * BLOCK == 9_477_120
    assert price(looped).forward == price(deep).forward
    assert [parameters(build(NAME, dims__rounds=rounds)) for rounds in (1, 12, 20)] == [parameters(model)] * 3


@torch.no_grad()
def test_more_rounds_than_in_training_need_no_other_weights() -> None:
    few, many = random(build(NAME, dims__rounds=4)), build(NAME, dims__rounds=9)
    many.load_state_dict(few.state_dict())
    again = build(NAME, dims__rounds=4)
    again.load_state_dict(many.state_dict())
    assert torch.equal(few(EXAMPLES), again(EXAMPLES)) and not torch.allclose(few(EXAMPLES), many(EXAMPLES))
