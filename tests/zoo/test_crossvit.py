"""CrossViT-15 at 240. Chen, Fan and Panda 2021, arXiv 2103.14899."""

from typing import Any

import pytest
import torch

from tests.zoo.published import assert_same, build, copy, macs, parameters, random

pytestmark = pytest.mark.system("crossvit")

LAYER = {
    "mixer.norm": "norm1",
    "mixer.body.qkv": "attn.qkv",
    "mixer.body.out": "attn.proj",
    "channel.norm": "norm2",
    "channel.body.up": "mlp.fc1",
    "channel.body.down": "mlp.fc2",
}
READ = {
    "asked.body.norm": "projs.{}.0",
    "asked.body.project.linear": "projs.{}.2",
    "answer.norm": "fusion.{}.norm1",
    "answer.body.query": "fusion.{}.attn.wq",
    "answer.body.kv": "fusion.{0}.attn.wk fusion.{0}.attn.wv",
    "answer.body.out": "fusion.{}.attn.proj",
    "back.body.norm": "revert_projs.{}.0",
    "back.body.project.linear": "revert_projs.{}.2",
}


def names(large_layers: int) -> dict[str, str]:
    """Our names -> timm's."""
    found = {}
    for branch, (ours, depth) in enumerate((("small", 1), ("large", large_layers))):
        found |= {
            f"{ours}.body.patch_embedding.linear": f"patch_embed.{branch}.proj",
            f"{ours}.body.class_token.weight": f"cls_token_{branch}",
            f"{ours}.body.learned_position.weight": f"pos_embed_{branch}",
            f"{ours}_vote.body.norm": f"norm.{branch}",
            f"{ours}_vote.body.classifier": f"head.{branch}",
        }
        for turn in range(3):
            for number in range(depth):
                for a, b in LAYER.items():
                    found[f"pair.{turn}.{ours[0]}.{number}.{a}"] = f"blocks.{turn}.blocks.{branch}.{number}.{b}"
            for a, b in READ.items():
                parts = b.format(branch).split()
                found[f"pair.{turn}.{ours[0]}_out.body.{a}"] = " ".join(f"blocks.{turn}.{part}" for part in parts)
    return found


def test_parameters() -> None:
    assert parameters(build("crossvit_15", device="meta")) == 27_528_464


def test_as_many_macs_as_timm(timm: Any) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("crossvit_15_240").eval()
    image = torch.empty(1, 240, 240, 3)
    cost = macs(build("crossvit_15", device="meta"), image)
    assert cost == macs(theirs, image.permute(0, 3, 1, 2))
    assert cost == pytest.approx(5.8e9, rel=0.01)


@pytest.mark.parametrize(("small", "layers"), [(48, 2), pytest.param(192, 5, marks=pytest.mark.slow)])
@torch.no_grad()
def test_computes_what_timm_computes(timm: Any, small: int, layers: int) -> None:
    depths = [[1, layers, 0]] * 3
    theirs = random(timm.create_model("crossvit_15_240", embed_dim=[small, 2 * small], depth=depths))
    ours = build("crossvit_15", dims__small=small, dims__large=2 * small, blocks__exchange__graph__l__times=layers)
    copy(ours, dict(theirs.named_parameters()), names(layers))
    image = torch.randn(2, 240, 240, 3)
    assert_same(ours(image), theirs(image.permute(0, 3, 1, 2)), 1e-4)


def test_exchanging_costs_in_proportion_to_the_patches() -> None:
    """One query for each branch: a block's cost without its layers, on images with 4 and 16 times the patches."""

    def exchange(size: int) -> float:
        large = size * 224 // 240
        changes = {"interface__image": [size, size, 3], "graph__shrunk__size": [large, large]}
        image = torch.empty(1, size, size, 3)
        once, twice = (macs(build("crossvit_15", device="meta", **changes, graph__pair__times=times,
                                  blocks__exchange__graph__s__times=0, blocks__exchange__graph__l__times=0), image)
                       for times in (1, 2))  # fmt: skip
        return twice - once

    first, second, third = exchange(240), exchange(480), exchange(960)
    assert third - second == pytest.approx(4 * (second - first), rel=1e-9)
