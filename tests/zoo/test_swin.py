"""Swin-T. Liu et al. 2021, arXiv 2103.14030."""

from typing import Any

import pytest
import torch
from torch import Tensor

from compiler.modules.regularise import SampleDrop
from tests.zoo.published import assert_same, build, copy, macs, parameters, random

pytestmark = pytest.mark.system("swin")

DEPTHS = (1, 1, 3, 1)  # pairs of layers
LAYER = {
    "mixer.norm": "norm1",
    "mixer.body.body.qkv": "attn.qkv",
    "mixer.body.body.position.weight": "attn.relative_position_bias_table",
    "mixer.body.body.out": "attn.proj",
    "channel.norm": "norm2",
    "channel.body.up": "mlp.fc1",
    "channel.body.down": "mlp.fc2",
}
NAMES = {
    "patch_embedding.linear": "patch_embed.proj",
    "patch_embedding.norm": "patch_embed.norm",
    **{
        f"stage{stage + 1}.{pair}.{half}.body.{ours}": f"layers.{stage}.blocks.{2 * pair + number}.{theirs}"
        for stage, depth in enumerate(DEPTHS)
        for pair in range(depth)
        for number, half in enumerate(("layer", "layer_2"))
        for ours, theirs in LAYER.items()
    },
    **{f"merge{stage}.norm": f"layers.{stage}.downsample.norm" for stage in (1, 2, 3)},
    **{f"merge{stage}.linear": f"layers.{stage}.downsample.reduction" for stage in (1, 2, 3)},
    "layer_norm": "norm",
    "classifier": "head.fc",
}


def by_rows(merged: Tensor) -> Tensor:
    """The features of a block of four tokens: theirs go down its columns, ours along its rows."""
    return merged.unflatten(-1, (2, 2, -1)).transpose(-3, -2).flatten(-3)


def test_parameters_and_macs() -> None:
    model = build("swin_t", device="meta")
    assert parameters(model) == 28_288_354
    assert macs(model, torch.empty(1, 224, 224, 3)) == pytest.approx(4.5e9, rel=0.01)


@pytest.mark.parametrize("width", [24, pytest.param(96, marks=pytest.mark.slow)])
@torch.no_grad()
def test_computes_what_timm_computes(timm: Any, width: int) -> None:
    theirs = random(timm.create_model("swin_tiny_patch4_window7_224", embed_dim=width))
    source = {n: by_rows(p) if "downsample" in n else p for n, p in theirs.named_parameters()}
    ours = build("swin_t", graph__patch_embedding__width=width, blocks__window__body__head_width=width // 3)
    copy(ours, source, NAMES)
    image = torch.randn(2, 224, 224, 3)
    assert_same(ours(image), theirs(image.permute(0, 3, 1, 2)), 1e-4)


def test_as_many_macs_as_timm(timm: Any) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("swin_tiny_patch4_window7_224").eval()
    image = torch.empty(1, 224, 224, 3)
    assert macs(build("swin_t", device="meta"), image) == macs(theirs, image.permute(0, 3, 1, 2))


def test_layers_are_dropped_at_the_published_rates(timm: Any) -> None:
    """From 0 in the first layer to 0.2 in the last."""
    with torch.device("meta"):
        theirs = timm.create_model("swin_tiny_patch4_window7_224", drop_path_rate=0.2)
    expected = [module.drop_prob for module in theirs.modules() if type(module).__name__ == "DropPath"]
    found = [module.rate for module in build("swin_t", device="meta").modules() if isinstance(module, SampleDrop)]
    assert found == pytest.approx(expected)


def test_cost_grows_linearly_with_the_image() -> None:
    """All of it: no token meets more than the 49 of its window."""
    head = 768 * 1000
    cost = {}
    for size in (224, 448, 672):
        model = build("swin_t", device="meta", interface__image=[size, size, 3])
        cost[size] = macs(model, torch.empty(1, size, size, 3)) - head
    assert cost[448] == 4 * cost[224]
    assert cost[672] == 9 * cost[224]


@torch.no_grad()
def test_windows_are_shifted_in_every_second_layer() -> None:
    small = {"graph__patch_embedding__width": 24, "blocks__window__body__head_width": 8}
    image = torch.randn(1, 224, 224, 3)
    shifted, plain = (random(build("swin_t", **small, blocks__pair__1__shift=shift))(image) for shift in (3, 0))
    assert (shifted - plain).abs().max() > 0.01  # a hundred times what differs from timm
