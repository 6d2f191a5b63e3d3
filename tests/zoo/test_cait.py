"""CaiT-S24. Touvron et al. 2021, arXiv 2103.17239."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.published import assert_same, build, copy, macs, parameters, random

pytestmark = pytest.mark.system("cait")

LAYERS = {
    "mixer.norm": "norm1",
    "mixer.body.qkv": "attn.qkv",
    "mixer.body.attend.before": "attn.proj_l.weight",
    "mixer.body.attend.before_bias": "attn.proj_l.bias",
    "mixer.body.attend.after": "attn.proj_w.weight",
    "mixer.body.attend.after_bias": "attn.proj_w.bias",
    "mixer.body.out": "attn.proj",
    "mixer.scale.weight": "gamma_1",
    "channel.norm": "norm2",
    "channel.body.up": "mlp.fc1",
    "channel.body.down": "mlp.fc2",
    "channel.scale.weight": "gamma_2",
}
CLASS_LAYERS = {
    "asked.norm": "norm1",
    "asked.body.query": "attn.q",
    "asked.body.kv": "attn.k attn.v",
    "asked.body.out": "attn.proj",
    "asked.scale.weight": "gamma_1",
    "thought.norm": "norm2",
    "thought.body.up": "mlp.fc1",
    "thought.body.down": "mlp.fc2",
    "thought.scale.weight": "gamma_2",
}


def names(depth: int) -> dict[str, str]:
    """Our names -> timm's."""
    found = {
        "patch_embedding.linear": "patch_embed.proj",
        "learned_position.weight": "pos_embed",
        "class_token.weight": "cls_token",
        "layer_norm": "norm",
        "classifier": "head",
    }
    for ours, theirs, count, layer in (("layers", "blocks", depth, LAYERS),
                                       ("class_layers", "blocks_token_only", 2, CLASS_LAYERS)):  # fmt: skip
        for number in range(count):
            for a, b in layer.items():
                found[f"{ours}.{number}.{a}"] = " ".join(f"{theirs}.{number}.{part}" for part in b.split())
    return found


def test_parameters() -> None:
    assert parameters(build("cait_s24", device="meta")) == 46_916_200


def test_as_many_macs_as_timm(timm: Any) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("cait_s24_224").eval()
    image = torch.empty(1, 224, 224, 3)
    cost = macs(build("cait_s24", device="meta"), image)
    assert cost == macs(theirs, image.permute(0, 3, 1, 2))
    assert cost == pytest.approx(9.33e9, rel=0.001)


@pytest.mark.parametrize(("width", "depth"), [(96, 3), pytest.param(384, 24, marks=pytest.mark.slow)])
@torch.no_grad()
def test_computes_what_timm_computes(timm: Any, width: int, depth: int) -> None:
    theirs = random(timm.create_model("cait_s24_224", embed_dim=width, depth=depth))
    ours = build("cait_s24", dims__width=width, graph__layers__times=depth)
    copy(ours, dict(theirs.named_parameters()), names(depth))
    image = torch.randn(2, 224, 224, 3)
    assert_same(ours(image), theirs(image.permute(0, 3, 1, 2)), 1e-4)


@torch.no_grad()
def test_class_token_enters_after_the_layers_and_leaves_the_patches_as_they_are() -> None:
    ours = build("cait_s24", dims__width=48, graph__layers__times=2)
    seen: dict[str, Any] = {}
    for name in ("layers.1", "class_layers.0", "class_layers.1"):
        ours.get_submodule(name).register_forward_hook(lambda module, given, out, name=name: seen.update({name: out}))
    random(ours)(torch.randn(1, 224, 224, 3))
    patches: Tensor = seen["layers.1"]
    assert patches.shape == (1, 196, 48)
    for name in ("class_layers.0", "class_layers.1"):
        assert torch.equal(seen[name][:, 1:], patches)
    assert not torch.equal(seen["class_layers.0"][:, :1], seen["class_layers.1"][:, :1])
