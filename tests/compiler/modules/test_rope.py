"""Rotary frequencies under every scaling, against those of `transformers`, and what decoding does with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.decoding import Decoding
from compiler.model import compile
from tests.compiler.modules.bodies import body, under
from tests.models import perturbed

WIDTH, MOST = 32, 256
SHORT, LONG = [1.0 + 0.1 * i for i in range(WIDTH // 2)], [1.0 + 0.5 * i for i in range(WIDTH // 2)]
# A scaling as we say it, and as a configuration of transformers does.
SCALINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"kind": "linear", "factor": 3.0}, {"rope_type": "linear", "factor": 3.0}),
    "dynamic": ({"kind": "dynamic", "factor": 3.0, "length": 64}, {"rope_type": "dynamic", "factor": 3.0}),
    "yarn": (
        {"kind": "yarn", "factor": 8.0, "length": 32},
        {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32},
    ),
    "yarn by length": (
        {"kind": "yarn", "length": 32},
        {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 32},
    ),
    "yarn with mscale": (
        {"kind": "yarn", "factor": 40.0, "length": 32, "mscale": 1.0, "mscale_all": 0.7, "fast": 16, "slow": 2},
        {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 32, "mscale": 1.0,
         "mscale_all_dim": 0.7, "beta_fast": 16, "beta_slow": 2},
    ),
    "yarn untruncated": (
        {"kind": "yarn", "factor": 32.0, "length": 64, "truncate": False, "attention_factor": 1.25},
        {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 64, "truncate": False,
         "attention_factor": 1.25},
    ),
    "longrope": (
        {"kind": "longrope", "short": SHORT, "long": LONG, "length": 64},
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": 64},
    ),
    "longrope with factor": (
        {"kind": "longrope", "short": SHORT, "long": LONG, "length": 64, "factor": 2.0},
        {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "factor": 2.0,
         "original_max_position_embeddings": 64},
    ),
    "llama3": (
        {"kind": "llama3", "factor": 8.0, "low": 1.0, "high": 4.0, "length": 64},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64},
    ),
    "none": ({}, {"rope_type": "default"}),
}  # fmt: skip


def ours(name: str, *, share: float = 1.0) -> Any:
    scaling = SCALINGS[name][0]
    told = f", scaling: {scaling}".replace("'", "").replace("True", "true").replace("False", "false")
    rope = f"{{kind: rope, theta: 5e4, share: {share}{told if scaling else ''}}}"
    width = int(WIDTH / share)
    model = body(f"{{kind: attention, heads: 2, position: {rope}}}", f"token: {MOST}", 2 * width, causal="token",
                 limit=MOST)  # fmt: skip
    return model.get_submodule("attention.position")


def theirs(name: str, count: int, *, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[count, width / 2]``."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    most = 64 if name == "dynamic" else MOST
    config = llama.LlamaConfig(
        hidden_size=2 * int(WIDTH / share), num_attention_heads=2, max_position_embeddings=most,
        rope_parameters={"rope_theta": 5e4, "partial_rotary_factor": share, **SCALINGS[name][1]},
    )  # fmt: skip
    cos, sin = llama.LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(count)[None])
    return cos[0, :, : WIDTH // 2], sin[0, :, : WIDTH // 2]


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("count", [20, 64, 65, 256])
def test_angles_are_those_of_transformers(name: str, count: int) -> None:
    rope = ours(name)
    for found, expected in zip(rope.at(count, None, count), theirs(name, count), strict=True):
        torch.testing.assert_close(found[0, :, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["linear", "dynamic", "yarn", "longrope", "llama3"])
def test_a_share_is_scaled_as_a_head_of_its_width(name: str) -> None:
    rope = ours(name, share=0.5)
    for found, expected in zip(rope.at(100, None, 100), theirs(name, 100, share=0.5), strict=True):
        torch.testing.assert_close(found[0, :, 0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["dynamic", "longrope"])
def test_a_length_in_a_tensor_is_that_length(name: str) -> None:
    rope = ours(name)
    for count in (20, 64, 65, 200):
        place = torch.arange(count)[None]
        for found, expected in zip(rope.at(count, place, place.max() + 1), rope.at(count, None, count), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SCALINGS)
def test_places_beyond_the_tables_are_turned_as_those_in_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ours(name)
    monkeypatch.setattr("compiler.modules.rope.LARGEST", 16)
    cut = ours(name)
    assert (len(whole.cos), len(cut.cos)) == (MOST, 16)
    for count in (10, 100):
        place = torch.arange(count)[None]
        for given, length in ((None, count), (place, count), (place, place.max() + 1)):
            for found, expected in zip(cut.at(count, given, length), whole.at(count, None, count), strict=True):
                assert torch.equal(found, expected)


@pytest.mark.parametrize("scaling", [
    "{kind: dynamic, factor: 4, length: 8}",
    "{kind: longrope, length: 8, short: [1, 1.5, 2, 3], long: [2, 4, 6, 8], long_attention_factor: 1.3}",
])  # fmt: skip
@torch.no_grad()
def test_decoding_keeps_keys_as_they_were_turned(scaling: str) -> None:
    """The last token reads keys that were turned by the frequencies of the length at which each came."""
    model = perturbed(compile(loads(f"""
archspec: 1
name: growing
interface: {{kind: causal_lm, vocab: 32, length: 64}}
graph:
  - {{kind: token_embedding, width: 16}}
  - {{kind: attention, heads: 2, position: {{kind: rope, scaling: {scaling}}}}}
  - lm_head
"""))).eval()  # fmt: skip
    tokens = torch.randint(0, 32, (2, 14))
    decoding = Decoding(model)
    steps = torch.cat([decoding(tokens[:, :6]), *(decoding(tokens[:, at : at + 1]) for at in range(6, 14))], dim=1)
    torch.testing.assert_close(steps[:, :8], model(tokens[:, :8]), atol=1e-5, rtol=0)
    rope: Any = model.get_submodule("attention.position")
    state = under(model, "")
    qkv = state["token_embedding.weight"][tokens] @ state["attention.qkv.weight"].T
    q, k, v = (part.unflatten(-1, (2, 8)) for part in qkv.chunk(3, dim=-1))
    keys = torch.cat([rope.rotate(k[:, at : at + 1], rope.at(1, torch.tensor([[at]]), max(6, at + 1)))
                      for at in range(14)], dim=1)  # fmt: skip
    query = rope.rotate(q[:, 13:], rope.at(1, torch.tensor([[13]]), 14))
    weights = (torch.einsum("bqhd,bkhd->bhqk", query, keys) / 8**0.5).softmax(-1)
    read = torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)
    expected = read @ state["attention.out.weight"].T @ state["lm_head.weight"].T
    torch.testing.assert_close(steps[:, 13:], expected, atol=1e-5, rtol=0)


def test_as_many_factors_as_frequencies() -> None:
    with pytest.raises(SpecError, match="3 factors for 4 frequencies"):
        body("{kind: attention, heads: 2, position: {kind: rope, scaling: {kind: longrope, length: 8, "
             "short: [1, 2, 3], long: [1, 2, 3, 4]}}}")  # fmt: skip


def test_a_scaling_needs_a_known_kind() -> None:
    with pytest.raises(SpecError, match="no scaling is called 'ntk'"):
        body("{kind: attention, heads: 2, position: {kind: rope, scaling: {kind: ntk, factor: 2}}}")
    with pytest.raises(SpecError, match="scaling needs a kind"):
        body("{kind: attention, heads: 2, position: {kind: rope, scaling: {factor: 2}}}")
