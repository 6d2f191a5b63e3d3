"""The vision transformer of examples/zoo computes what `transformers` computes from the same weights.

Language models are compared in tests/families.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from archspec.spec import load
from compiler.model import compile

transformers = pytest.importorskip("transformers")
ZOO = Path(__file__).parents[2] / "examples" / "zoo"
LAYERS, WIDTH, HEADS = 2, 48, 4

# Our parameter, `*` for the number of the layer -> theirs, which are put one after another where ours is fused.
VIT = {
    "patches.linear": ["vit.embeddings.patch_embeddings.projection"],
    "class_token.weight": ["vit.embeddings.cls_token"],
    "places.weight": ["vit.embeddings.position_embeddings"],
    "layers.*.mixer.norm": ["vit.layers.*.layernorm_before"],
    "layers.*.mixer.body.qkv": [f"vit.layers.*.attention.{x}_proj" for x in "qkv"],
    "layers.*.mixer.body.out": ["vit.layers.*.attention.o_proj"],
    "layers.*.channel.norm": ["vit.layers.*.layernorm_after"],
    "layers.*.channel.body.up": ["vit.layers.*.mlp.fc1"],
    "layers.*.channel.body.down": ["vit.layers.*.mlp.fc2"],
    "norm": ["vit.layernorm"],
    "head": ["classifier"],
}


def small(name: str, **changes: Any) -> Any:
    sizes = {"dims.width": WIDTH, "dims.heads": HEADS, "graph.layers.times": LAYERS}
    return compile(load(ZOO / f"{name}.yaml", set={**sizes, **changes}), seed=1).eval()


def random(theirs: nn.Module) -> nn.Module:
    """Their model with noise on every weight, so that no bias is zero and no gain one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return theirs.eval()


@torch.no_grad()
def copy(ours: nn.Module, theirs: nn.Module, names: dict[str, list[str]]) -> None:
    """Gives our model their weights: every parameter of both is named, none twice."""
    source = dict(theirs.named_parameters())
    used: set[str] = set()
    for name, parameter in ours.named_parameters():
        number = next((part for part in name.split(".") if part.isdigit()), "*")
        pattern = name.replace(f".{number}.", ".*.", 1)
        last = "" if pattern in names else "." + pattern.rsplit(".", 1)[1]
        parts = [part.replace("*", number) + last for part in names[pattern.removesuffix(last)]]
        value = torch.cat([laid_out(theirs, part, source[part]) for part in parts])
        parameter.copy_(value.view_as(parameter))
        assert not used & {*parts}
        used |= {*parts}
    assert used == source.keys()


def laid_out(theirs: nn.Module, name: str, value: Tensor) -> Tensor:
    """Their weight in the layout of ours: the pixels of a patch before its channels."""
    module = theirs.get_submodule(name.rsplit(".", 1)[0])
    return value.permute(0, 2, 3, 1).flatten(1) if isinstance(module, nn.Conv2d) and value.ndim == 4 else value


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.1  # the comparison is of something
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_vit() -> None:
    sizes = {"image_size": 24, "patch_size": 8, "num_channels": 3, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
             "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH}  # fmt: skip
    theirs = random(transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, num_labels=7)))
    ours = small("vit_base", **{"interface.image": [24, 24, 3], "interface.classes": 7, "dims.patch": 8})
    copy(ours, theirs, VIT)
    image = torch.randn(2, 24, 24, 3)
    assert_same(ours(image), theirs(image.permute(0, 3, 1, 2)).logits)


def test_parameters_at_full_size() -> None:
    with torch.device("meta"):
        theirs = transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000))
    ours = compile(load(ZOO / "vit_base.yaml"), device="meta")
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 86_567_656
