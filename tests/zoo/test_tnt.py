"""TNT-S. Han et al. 2021, arXiv 2103.00112."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.published import assert_same, build, copy, macs, parameters, random

pytestmark = pytest.mark.system("tnt")

BLOCK = {
    "mixed.body.mixer.norm": "norm_in",
    "mixed.body.mixer.body.qkv": "attn_in.qk attn_in.v",
    "mixed.body.mixer.body.out": "attn_in.proj",
    "mixed.body.channel.norm": "norm_mlp_in",
    "mixed.body.channel.body.up": "mlp_in.fc1",
    "mixed.body.channel.body.down": "mlp_in.fc2",
    "told.body.gather.norm": "norm1_proj",
    "told.body.gather.linear": "proj",
    "told.body.gather.norm_after": "norm2_proj",
    "thought.body.mixer.norm": "norm_out",
    "thought.body.mixer.body.qkv": "attn_out.qk attn_out.v",
    "thought.body.mixer.body.out": "attn_out.proj",
    "thought.body.channel.norm": "norm_mlp",
    "thought.body.channel.body.up": "mlp.fc1",
    "thought.body.channel.body.down": "mlp.fc2",
}


def names(depth: int) -> dict[str, str]:
    """Our names -> timm's."""
    found = {
        "pixels.body.patch_embedding.linear": "pixel_embed.proj",
        "placed.weight": "pixel_pos",
        "patches.norm": "norm1_proj",
        "patches.linear": "proj",
        "patches.norm_after": "norm2_proj",
        "class_token.weight": "cls_token",
        "tokens.weight": "patch_pos",
        "layer_norm": "norm",
        "classifier": "head",
    }
    for number in range(depth):
        for a, b in BLOCK.items():
            found[f"layers.{number}.{a}"] = " ".join(f"blocks.{number}.{part}" for part in b.split())
    return found


def test_parameters() -> None:
    assert parameters(build("tnt_s", device="meta")) == 23_768_584


def test_as_many_macs_as_timm(timm: Any) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("tnt_s_patch16_224").eval()
    image = torch.empty(1, 224, 224, 3)
    cost = macs(build("tnt_s", device="meta"), image)
    assert cost == macs(theirs, image.permute(0, 3, 1, 2))
    assert cost == pytest.approx(5.2e9, rel=0.01)


@pytest.mark.parametrize(("outer", "depth"), [(96, 3), pytest.param(384, 12, marks=pytest.mark.slow)])
@torch.no_grad()
def test_computes_what_timm_computes(timm: Any, outer: int, depth: int) -> None:
    theirs = random(timm.create_model("tnt_s_patch16_224", embed_dim=outer, depth=depth))
    ours = build("tnt_s", dims__outer=outer, graph__layers__times=depth)
    copy(ours, dict(theirs.named_parameters()), names(depth))
    image = torch.randn(2, 224, 224, 3)
    assert_same(ours(image), theirs(image.permute(0, 3, 1, 2)), 1e-4)


@torch.no_grad()
def test_inner_layers_run_over_all_patches_as_one_batch_and_never_across_them() -> None:
    ours = random(build("tnt_s", dims__outer=48, graph__layers__times=2))
    seen: list[Tensor] = []
    ours.get_submodule("layers.1.mixed.body.channel.body.down").register_forward_hook(
        lambda *call: seen.append(call[2])
    )
    image = torch.randn(2, 224, 224, 3)
    other = image.clone()
    other[1, 32:48, 64:80] += 1  # row 2, column 4 of 14 × 14 patches
    ours(image), ours(other)
    assert seen[0].shape == (2 * 196, 16, 24)
    changed = (seen[0] - seen[1]).abs().amax((1, 2)) > 1e-6
    assert changed.nonzero().tolist() == [[196 + 2 * 14 + 4]]
