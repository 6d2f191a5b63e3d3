"""The published architectures of examples/zoo compute what `transformers` computes from the same weights."""

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
LLAMA = {
    "words.weight": ["model.embed_tokens.weight"],
    "layers.*.mixer.norm.weight": ["model.layers.*.input_layernorm.weight"],
    "layers.*.mixer.body.qkv.weight": [f"model.layers.*.self_attn.{x}_proj.weight" for x in "qkv"],
    "layers.*.mixer.body.out.weight": ["model.layers.*.self_attn.o_proj.weight"],
    "layers.*.channel.norm.weight": ["model.layers.*.post_attention_layernorm.weight"],
    "layers.*.channel.body.gate_up.weight": [f"model.layers.*.mlp.{x}_proj.weight" for x in ("gate", "up")],
    "layers.*.channel.body.down.weight": ["model.layers.*.mlp.down_proj.weight"],
    "norm.weight": ["model.norm.weight"],
    "head.weight": ["lm_head.weight"],
}
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


@pytest.mark.parametrize("scaling", ["llama3", "linear", None])
@torch.no_grad()
def test_llama(scaling: str | None) -> None:
    sizes = {"vocab_size": 99, "hidden_size": WIDTH, "intermediate_size": 80, "num_hidden_layers": LAYERS,
             "num_attention_heads": HEADS, "num_key_value_heads": 2, "max_position_embeddings": 128}  # fmt: skip
    rope: dict[str, Any] = {"rope_theta": 1e4, "rope_type": scaling or "default"}
    ours_scaling: dict[str, Any] | None = None
    if scaling is not None:
        rope["factor"] = 4.0
        ours_scaling = {"kind": scaling, "factor": 4.0}
    if scaling == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
        ours_scaling = {"kind": "llama3", "factor": 4.0, "length": 32}
    config = transformers.LlamaConfig(**sizes, rms_norm_eps=1e-5, rope_parameters=rope)
    theirs = random(transformers.LlamaForCausalLM(config))
    changes: dict[str, Any] = {"blocks.rotation.theta": 1e4, "blocks.rotation.scaling": ours_scaling}
    changes |= {"interface.vocab": 99, "interface.length": 128, "dims.kv_heads": 2, "dims.hidden": 80}
    ours = small("llama_3_1_8b", **changes)
    copy(ours, theirs, LLAMA)
    tokens = torch.randint(0, 99, (2, 100))
    assert_same(ours(tokens), theirs(tokens).logits)


@torch.no_grad()
def test_vit() -> None:
    sizes = {"image_size": 24, "patch_size": 8, "num_channels": 3, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
             "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH}  # fmt: skip
    theirs = random(transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, num_labels=7)))
    ours = small("vit_base", **{"interface.image": [24, 24, 3], "interface.classes": 7, "dims.patch": 8})
    copy(ours, theirs, VIT)
    image = torch.randn(2, 24, 24, 3)
    assert_same(ours(image), theirs(image.permute(0, 3, 1, 2)).logits)


def published(name: str) -> nn.Module:
    config = {
        "vit_base": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000)),
        "llama_3_1_8b": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_key_value_heads=8
            )
        ),
    }
    with torch.device("meta"):
        return config[name]()


@pytest.mark.parametrize(
    ("name", "count"),
    [("llama_3_1_8b", 8_030_261_248), ("vit_base", 86_567_656)],
)
def test_parameters_at_full_size(name: str, count: int) -> None:
    ours = compile(load(ZOO / f"{name}.yaml"), device="meta")
    assert sum(p.numel() for p in ours.parameters()) == count
    assert sum(p.numel() for p in published(name).parameters()) == count
