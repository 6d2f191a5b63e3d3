"""First values: by name, by scheme, and by what a kind says of its own weights."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.model import compile

LAYERS, WIDTH, HIDDEN = 4, 256, 512


MIXER = "mixer: {kind: attention, heads: 4, kv_heads: 2, bias: true}"


def weights(
    init: str = "normal", *, times: int = LAYERS, extra: str = "", seed: int = 0, mixer: str = MIXER
) -> dict[str, Tensor]:
    text = f"""
archspec: 1
name: init
interface: {{kind: causal_lm, vocab: 300, length: 32}}
init: {init}
blocks:
  layer:
    kind: transformer_layer
    {mixer}
    channel: {{kind: glu, hidden: {HIDDEN}, bias: true}}
graph:
  - {{kind: token_embedding, width: {WIDTH}}}
{extra}
  - {{name: layers, kind: repeat, times: {times}, body: layer}}
  - layer_norm
  - lm_head
"""
    return {name: p.detach() for name, p in compile(loads(text), seed=seed).named_parameters()}


QKV, OUT = "layers.{}.mixer.body.qkv.weight", "layers.{}.mixer.body.out.weight"
GATE_UP, DOWN = "layers.{}.channel.body.gate_up.weight", "layers.{}.channel.body.down.weight"
MATRICES = (QKV, OUT, GATE_UP, DOWN)


def assert_std(value: Tensor, expected: float) -> None:
    """Within five standard errors of the sample's own standard deviation."""
    assert abs(value.std().item() / expected - 1) < 5 / math.sqrt(2 * value.numel())
    assert abs(value.mean().item()) < 5 * expected / math.sqrt(value.numel())


def test_a_weight_depends_on_its_name_alone() -> None:
    some, more = weights(times=2), weights(times=4, extra="  - {kind: mlp, ratio: 1}")
    assert all(torch.equal(value, more[name]) for name, value in some.items())
    assert len({value.sum().item() for value in (more[QKV.format(n)] for n in range(4))}) == 4


def test_another_seed_gives_other_weights() -> None:
    a, b = weights(times=1), weights(times=1, seed=1)
    assert not any(torch.equal(a[name], b[name]) for name in a if name.endswith("weight") and "norm" not in name)


@pytest.mark.parametrize("scheme", ["normal", "truncated_normal", "xavier", "kaiming", "mup"])
def test_biases_are_zero_and_gains_one(scheme: str) -> None:
    for name, value in weights(scheme, times=2).items():
        if "norm.weight" in name:
            assert torch.equal(value, torch.ones_like(value))
        elif name.endswith("bias"):
            assert torch.equal(value, torch.zeros_like(value))
        else:
            assert value.std() > 0


def test_normal() -> None:
    found = weights("{kind: normal, std: 0.03}")
    for name in (*MATRICES, "token_embedding.weight", "lm_head.weight"):
        assert_std(found[name.format(1)], 0.03)


@pytest.mark.parametrize("scheme", ["normal", "truncated_normal"])
def test_depth_scaled(scheme: str) -> None:
    scaled = weights(f"{{kind: {scheme}, std: 0.02, depth_scaled: true}}")
    plain = weights(f"{{kind: {scheme}, std: 0.02}}")
    for name in (QKV, GATE_UP):
        assert torch.equal(scaled[name.format(0)], plain[name.format(0)])
    for name in (OUT, DOWN):
        torch.testing.assert_close(scaled[name.format(0)], plain[name.format(0)] / math.sqrt(2 * LAYERS))


def test_truncated_normal() -> None:
    found = weights("{kind: truncated_normal, std: 0.02}")[DOWN.format(0)]
    assert found.abs().max() <= 0.04
    cut = 1 - 2 * 2 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))  # variance of what is left
    assert_std(found, 0.02 * math.sqrt(cut))


def test_xavier_counts_the_parts_of_a_fused_matrix() -> None:
    found = weights("{kind: xavier, gain: 1.5}")
    parts = {WIDTH: found[QKV.format(0)][:WIDTH], WIDTH // 2: found[QKV.format(0)][WIDTH : WIDTH + WIDTH // 2],
             HIDDEN: found[GATE_UP.format(0)][:HIDDEN]}  # fmt: skip
    for outputs, part in parts.items():
        assert_std(part, 1.5 * math.sqrt(2 / (WIDTH + outputs)))
    assert_std(found[DOWN.format(0)], 1.5 * math.sqrt(2 / (HIDDEN + WIDTH)))


def test_kaiming() -> None:
    found = weights("kaiming")
    assert_std(found[QKV.format(0)], 1 / math.sqrt(WIDTH))
    assert_std(found[DOWN.format(0)], 1 / math.sqrt(HIDDEN))


def test_mup_falls_with_the_width_beyond_the_base() -> None:
    found = weights("{kind: mup, std: 0.02, base_width: 64}")
    assert_std(found[QKV.format(0)], 0.02 * math.sqrt(64 / WIDTH))
    assert_std(found[DOWN.format(0)], 0.02 * math.sqrt(64 / HIDDEN))
    assert_std(weights("{kind: mup, std: 0.02, base_width: 1024}")[QKV.format(0)], 0.02)


def one(node: str, **fields: Any) -> dict[str, Tensor]:
    text = f"""
archspec: 1
name: one
interface: {{kind: masked_lm, vocab: 300, length: 64}}
graph: [{{name: words, kind: token_embedding, width: {WIDTH}, std: 0.5}}, {node}, lm_head]
"""
    return {name: p.detach() for name, p in compile(loads(text)).named_parameters()}


def test_a_kinds_own_values_come_before_the_scheme() -> None:
    assert_std(one("identity")["words.weight"], 0.5)
    assert_std(one("{name: p, kind: learned_position, std: 0.1}")["p.weight"], 0.1)
    assert torch.equal(one("{name: s, kind: layer_scale, init: 0.25}")["s.weight"], torch.full((WIDTH,), 0.25))
    assert torch.equal(one("{name: n, kind: rms_norm, offset: 1.0}")["n.weight"], torch.zeros(WIDTH))
    mixed = one("{name: r, kind: repeat, times: 2, body: identity, history: learned_mix}")
    assert [value.tolist() for name, value in mixed.items() if name.startswith("r.")] == [[0.0, 4.0]]


def test_experts_are_drawn_like_matrices_of_their_own() -> None:
    experts = f"{{name: m, kind: mixture, experts: {{count: 3, body: {{kind: mlp, hidden: {HIDDEN}}}}}}}"
    text = f"""
archspec: 1
name: experts
interface: {{kind: masked_lm, vocab: 16, length: 64}}
init: kaiming
graph: [{{kind: token_embedding, width: {WIDTH}}}, {experts}, lm_head]
"""
    found = dict(compile(loads(text)).named_parameters())
    assert_std(found["m.experts.up.weight"].detach(), 1 / math.sqrt(WIDTH))
    assert_std(found["m.experts.down.weight"].detach(), 1 / math.sqrt(HIDDEN))


def test_a_matrix_with_a_gain_or_an_identity() -> None:
    plain = weights("xavier", times=2)
    kinds = {
        "query": "{kind: matrix, gain: 0}",
        "value": "{kind: matrix, start: identity, gain: 0.5}",
        "out": "{kind: matrix, gain: sqrt(log(2 * 8))}",
    }
    linears = ", ".join(f"{role}: {kind}" for role, kind in kinds.items())
    mixer = f"mixer: {{kind: attention, heads: 4, bias: true, linears: {{{linears}}}}}"
    changed = weights("xavier", times=2, mixer=mixer)
    assert torch.equal(changed["layers.1.mixer.body.query.weight"], torch.zeros(WIDTH, WIDTH))
    assert torch.equal(changed["layers.1.mixer.body.value.weight"], 0.5 * torch.eye(WIDTH))
    torch.testing.assert_close(changed[OUT.format(1)], math.sqrt(math.log(16)) * plain[OUT.format(1)])
    assert torch.equal(changed[DOWN.format(1)], plain[DOWN.format(1)])


def test_an_identity_of_a_matrix_that_is_not_square_is_refused() -> None:
    mixer = "mixer: {kind: attention, heads: 4, kv_heads: 2, linears: {key: {kind: matrix, start: identity}}}"
    with pytest.raises(SpecError, match="identity cannot map 256 features to 128"):
        weights(mixer=mixer)
