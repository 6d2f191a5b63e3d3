"""Selective state spaces against the released mixers, and their parallel forms against the recurrences."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compiler.modules.ssm import BLOCK, SHORT, chunked, one_by_one, selective_scan
from tests.compiler.modules.bodies import assert_close, body

pytest.importorskip("transformers")
WIDTH = 24
INPUTS = {"in_proj": "value_gate", "x_proj": "selection", "out_proj": "out", "conv1d": "convolution"}
NORMS = {"dt_layernorm": "dt_norm", "b_layernorm": "B_norm", "c_layernorm": "C_norm"}
S6 = {**INPUTS, **NORMS, "dt_proj.weight": "dt_up.weight", "dt_proj.bias": "dt_bias"}
SSD = {**INPUTS, "in_proj": "inputs"}
S6_SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 1}

# Family and class of a mixer, its configuration, our node, our names of its weights.
CASES: dict[str, tuple[str, str, dict[str, Any], str, dict[str, str]]] = {
    "mamba": (
        "mamba", "MambaMixer", {**S6_SIZES, "state_size": 5}, "{kind: mamba, state: 5}", S6
    ),
    "mamba, other sizes": (
        "mamba", "MambaMixer",
        {**S6_SIZES, "state_size": 5, "use_conv_bias": False, "expand": 3, "conv_kernel": 2, "time_step_rank": 7,
         "hidden_act": "gelu"},
        "{kind: mamba, state: 5, convolution_bias: false, expand: 3, convolution: 2, dt_rank: 7, activation: gelu}", S6,
    ),
    "falcon_mamba": (
        "falcon_mamba", "FalconMambaBlock", {**S6_SIZES, "state_size": 5, "mixer_rms_eps": 1e-3},
        "{kind: mamba, state: 5, norm: {kind: rms_norm, eps: 1e-3, affine: false}}", S6,
    ),
    "jamba": (
        "jamba", "JambaMambaMixer",
        {**S6_SIZES, "num_attention_heads": 4, "mamba_d_state": 5, "mamba_dt_rank": 3, "rms_norm_eps": 1e-3},
        "{kind: mamba, state: 5, dt_rank: 3, norm: {kind: rms_norm, eps: 1e-3}}", S6,
    ),
    "mamba2": (
        "mamba2", "Mamba2Mixer",
        {**S6_SIZES, "num_heads": 6, "head_dim": 8, "state_size": 5, "n_groups": 3, "chunk_size": 8},
        "{kind: mamba2, heads: 6, state: 5, groups: 3, norm: {kind: rms_norm, eps: 1e-5, group_size: 16}}", SSD,
    ),
    "mamba2, other sizes": (
        "mamba2", "Mamba2Mixer",
        {**S6_SIZES, "num_heads": 3, "head_dim": 8, "expand": 1, "state_size": 5, "n_groups": 1, "conv_kernel": 3,
         "time_step_limit": (0.2, 0.6), "use_conv_bias": False, "hidden_act": "gelu"},
        "{kind: mamba2, heads: 3, head_width: 8, state: 5, dt_min: 0.2, dt_max: 0.6, convolution: 3, chunk: 16, "
        "convolution_bias: false, activation: gelu, norm: {kind: rms_norm, eps: 1e-5}}", SSD,
    ),
    "bamba": (
        "bamba", "BambaMixer",
        {**S6_SIZES, "num_attention_heads": 4, "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_d_state": 5,
         "mamba_n_groups": 2, "rms_norm_eps": 1e-3},
        "{kind: mamba2, heads: 6, state: 5, groups: 2, norm: {kind: rms_norm, eps: 1e-3, group_size: 24}}", SSD,
    ),
    "zamba2": (
        "zamba2", "Zamba2MambaMixer",
        {**S6_SIZES, "num_attention_heads": 4, "layers_block_type": ["mamba"], "n_mamba_heads": 6, "mamba_d_state": 5,
         "mamba_ngroups": 2, "time_step_min": 0.3},
        "{kind: mamba2, heads: 6, state: 5, groups: 2, dt_min: 0.3, norm: {kind: rms_norm, eps: 1e-5, group_size: 24}}",
        SSD,
    ),
}  # fmt: skip
BIASED = {"mamba": "use_bias", "mamba2": "use_bias", "jamba": "mamba_proj_bias", "bamba": "mamba_proj_bias",
          "zamba2": "add_bias_linear"}  # fmt: skip
every = pytest.mark.parametrize("case", CASES)


@torch.no_grad()
def released(case: str, *, bias: bool = False) -> tuple[nn.Module, Any]:
    """Their mixer and ours with its weights."""
    family, cls, sizes, node, names = CASES[case]
    package = f"transformers.models.{family}"
    config = type(import_module("transformers").AutoConfig.for_model(family))
    torch.manual_seed(0)
    theirs = getattr(import_module(f"{package}.modeling_{family}"), cls)(
        config(**sizes, **({BIASED[family]: True} if bias else {})), 0
    )
    theirs = getattr(theirs, "mixer", theirs)
    for parameter in theirs.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.25)
    if bias:
        node = node.replace(", state", ", bias: true, state")
    ours = body(node, "token: n", WIDTH, interface="padding: true", causal="token")
    state = {}
    for name, parameter in theirs.named_parameters():
        for word, other in names.items():
            name = name.replace(word, other)
        state[f"{CASES[case][3].split(',')[0].split()[1]}.{name}"] = parameter
    ours.load_state_dict(state)
    return theirs.eval(), ours


@every
@pytest.mark.parametrize("tokens", [1, 9, 100])
@torch.no_grad()
def test_mixers_are_those_of_transformers(case: str, tokens: int) -> None:
    theirs, ours = released(case)
    x = torch.randn(2, tokens, WIDTH)
    assert_close(ours(x, torch.ones(2, tokens, dtype=torch.bool)), theirs(x))


@pytest.mark.parametrize("case", [case for case in CASES if case in BIASED])
@torch.no_grad()
def test_biases_are_those_of_transformers(case: str) -> None:
    theirs, ours = released(case, bias=True)
    x = torch.randn(2, 20, WIDTH)
    assert_close(ours(x, torch.ones(2, 20, dtype=torch.bool)), theirs(x))


@every
@pytest.mark.parametrize("left", [True, False])
@torch.no_grad()
def test_padding_is_that_of_transformers(case: str, left: bool) -> None:
    theirs, ours = released(case)
    x, place = torch.randn(2, 40, WIDTH), torch.arange(40)
    valid = torch.stack((place >= 0, place >= 7 if left else place < 33))
    assert_close(ours(x, valid)[valid], theirs(x, attention_mask=valid.float())[valid])


@every
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_padding_changes_nothing(case: str, bias: bool) -> None:
    if bias and case not in BIASED:
        return
    _, ours = released(case, bias=bias)
    x, place = torch.randn(1, 40, WIDTH), torch.arange(40)[None]
    valid = (place >= 7) & (place < 33)
    assert_close(ours(x, valid)[valid], ours(x[:, valid[0]], valid[:, valid[0]])[0])


def numbers(*shape: int, seed: int, positive: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = (torch.rand if positive else torch.randn)(shape, generator=generator, dtype=torch.float64)
    return drawn.requires_grad_()


def token_by_token(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`selective_scan` as it is written."""
    read = []
    for token in range(x.shape[1]):
        written = B[:, token, :, None] * (dt[:, token] * x[:, token])[:, None]
        state = (dt[:, token, None] * A).exp() * state + written
        read.append((C[:, token, :, None] * state).sum(1))
    return torch.stack(read, dim=1), state


def assert_same(one: Callable[..., Any], other: Callable[..., Any], given: list[Tensor]) -> None:
    """Outputs and all gradients of two functions are the same."""
    found = []
    for form in (one, other):
        y, state = form(*given)
        found.append([y, state, *torch.autograd.grad(y.square().sum() + state.sin().sum(), given)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("tokens", [1, 2, BLOCK, 2 * BLOCK + 5])
def test_selective_scan_equals_token_by_token(tokens: int) -> None:
    x, dt = numbers(2, tokens, 6, seed=0), numbers(2, tokens, 6, seed=1, positive=True)
    B, C = numbers(2, tokens, 4, seed=2), numbers(2, tokens, 4, seed=3)
    A, state = (-8 * numbers(4, 6, seed=4, positive=True)).detach().requires_grad_(), numbers(2, 4, 6, seed=5)
    assert_same(selective_scan, token_by_token, [x, dt, A, B, C, state])


def of_heads(tokens: int, *, fast: float = 8) -> list[Tensor]:
    """What the state space dual reads: six heads in two groups."""
    decays = (-fast * numbers(2, tokens, 6, seed=1, positive=True) ** 2).detach().requires_grad_()
    B, C = numbers(2, tokens, 2, 4, seed=2), numbers(2, tokens, 2, 4, seed=3)
    return [numbers(2, tokens, 6, 5, seed=0), decays, B, C, numbers(2, 2, 4, 3, 5, seed=4)]


@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("tokens", [1, SHORT, 50])
def test_state_space_dual_in_chunks_equals_token_by_token(chunk: int, tokens: int) -> None:
    def in_chunks(*given: Tensor) -> tuple[Tensor, Tensor]:
        return chunked(*given, chunk=chunk)

    assert_same(in_chunks, one_by_one, of_heads(tokens))


def test_fast_decay_is_exact() -> None:
    given = [part.detach().float().requires_grad_() for part in of_heads(50, fast=1e3)]
    y, state = chunked(*given)
    for found in (y, state, *torch.autograd.grad(y.sum() + state.sum(), given)):
        assert found.isfinite().all()
    torch.testing.assert_close(y, one_by_one(*given)[0], atol=1e-5, rtol=1e-5)


def test_states_of_a_scan_are_not_kept_for_the_gradient() -> None:
    tokens, width, state = 20 * BLOCK, 8, 16
    x, dt, B, C = (torch.rand(1, tokens, size, requires_grad=True) for size in (width, width, state, state))
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        selective_scan(x, dt, -torch.ones(state, width), B, C)
    assert sum(kept.values()) < 4 * tokens * width * state / 2
