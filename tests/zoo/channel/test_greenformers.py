"""Greenformers. Cahyawijaya 2021, arXiv 2108.10808."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import load, loads
from compiler.logical import logical
from compiler.model import compile
from search.cost.price import price
from tests.models import perturbed
from tests.zoo.published import ZOO, build, parameters, random, spec

pytestmark = pytest.mark.system("greenformers")
NAME = "channel/greenformers"
LINFORMER = "channel/greenformers_linformer"
TOKENS = torch.arange(24).reshape(2, 12) * 7 % 256
LAYER = {"query": (64, 64), "key": (64, 64), "value": (64, 64), "out": (64, 64), "up": (64, 256), "down": (256, 64)}


@pytest.mark.parametrize("rank", [1, 16, 64])
def test_a_matrix_of_rank_r_has_r_times_its_two_widths(rank: int) -> None:
    state = build(NAME, device="meta", dims__rank=rank).state_dict()
    for layer in range(2):
        for role, (inputs, outputs) in LAYER.items():
            ends = tuple(f".{role}.{thin}.weight" for thin in ("down", "up"))
            found = sum(value.numel() for name, value in state.items()
                        if f"layers.{layer}." in name and name.endswith(ends))  # fmt: skip
            assert found == rank * (inputs + outputs), role


def test_bert_base_of_rank_100() -> None:
    plain, thin = (compile(load(ZOO / path), device="meta")
                   for path in ("language/bert_base.yaml", "channel/greenformers_bert_base.yaml"))  # fmt: skip
    matrices = 12 * (4 * 768**2 + 2 * 768 * 3072)
    head = 768**2  # the matrix of the transform before the head
    thin_ones = 12 * 100 * (4 * (768 + 768) + 2 * (768 + 3072)) + 100 * (768 + 768)
    assert parameters(plain) - parameters(thin) == matrices + head - thin_ones


def factored(model: Any, thin: Any, rank: int) -> None:
    """Gives a model of thin matrices those of the plain one, cut at a rank by their singular values."""
    given, wanted = logical(model), logical(thin)
    with torch.no_grad():
        for name, value in given.items():
            if name in wanted:
                wanted[name].copy_(value)
                continue
            path, _, last = name.rpartition(".")
            if last == "bias":
                wanted[f"{path}.up.bias"].copy_(value)
                continue
            u, s, v = torch.linalg.svd(value, full_matrices=False)
            wanted[f"{path}.up.weight"].copy_(u[:, :rank] * s[:rank])
            wanted[f"{path}.down.weight"].copy_(v[:rank])


def models(rank: int) -> tuple[Any, Any]:
    plain = random(compile(spec(NAME, defaults__linear="matrix")))
    thin = build(NAME, dims__rank=rank)
    factored(plain, thin, rank)
    return plain, thin


@torch.no_grad()
def test_full_rank_reproduces_the_outputs() -> None:
    plain, thin = models(64)
    torch.testing.assert_close(thin(TOKENS), plain(TOKENS), atol=2e-4, rtol=2e-4)


@torch.no_grad()
def test_the_error_falls_with_the_rank() -> None:
    errors = []
    for rank in (8, 32, 60):
        plain, thin = models(rank)
        errors.append((thin(TOKENS) - plain(TOKENS)).square().mean().item())
    assert errors[0] > errors[1] > errors[2] > 1e-6


@pytest.mark.parametrize("device", ["v100", "xeon_gold_6240"])
def test_methods_cross_over_in_the_mid_hundreds_of_tokens(device: str) -> None:
    """At BERT base's widths, rank 384 and 128 tokens; a lower rank moves it to longer sequences."""

    def faster(tokens: int, rank: int = 384) -> bool:
        size = {"dims__width": 768, "dims__heads": 12, "interface__length": tokens}
        pair = (spec(NAME, **size, dims__rank=rank), spec(LINFORMER, **size, blocks__layer__mixer__memory__count=128))
        thin, linformer = (price(one, batch=8, device=device).latency_ms for one in pair)
        return thin < linformer

    assert faster(384) and not faster(768)
    assert faster(768, rank=100)


def test_low_rank_saves_30_percent_of_berts_cost() -> None:
    plain = price(load(ZOO / "language/bert_base.yaml"), length=512)
    thin = price(load(ZOO / "channel/greenformers_bert_base.yaml"), length=512)
    assert thin.forward < 0.7 * plain.forward


@torch.no_grad()
def test_projected_keys_equal_their_definition() -> None:
    text = """
    archspec: 1
    interface: {kind: backbone, inputs: {x: {axes: {token: n}, limit: 40, width: 8}}, padding: true}
    graph: [{name: a, kind: attention, heads: 2, memory: {kind: project_tokens, count: 5, bias: true}}]
    """
    model: Any = perturbed(compile(loads(text)))
    state = logical(model)
    x, valid = torch.randn(2, 12, 8), torch.arange(12) < torch.tensor([[12], [7]])
    rows = [state["a.memory.tokens.weight"][:, :12] @ (row * real[:, None]) for row, real in zip(x, valid, strict=True)]
    short = torch.stack(rows) + state["a.memory.tokens.bias"][:, None]
    q, k, v = (heads(F.linear(y, state[f"a.{role}.weight"])) for role, y in
               (("query", x), ("key", short), ("value", short)))  # fmt: skip
    read = F.softmax(q @ k.mT / 2, -1) @ v
    expected = F.linear(read.transpose(1, 2).flatten(2), state["a.out.weight"])
    torch.testing.assert_close(model(x, valid), expected, atol=1e-5, rtol=1e-5)


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (2, -1)).transpose(1, 2)


def test_causal_sequences_are_refused() -> None:
    with pytest.raises(SpecError, match="which is causal"):
        spec(LINFORMER, interface__kind="causal_lm")


def test_unbounded_sequences_are_refused() -> None:
    with pytest.raises(SpecError, match="no longest sequence"):
        loads("archspec: 1\ninterface: {kind: backbone, inputs: {x: {axes: {token: n}, width: 8}}}\n"
              "graph: [{kind: project_tokens, count: 4}]\n")  # fmt: skip
