"""Greenformers. Cahyawijaya 2021, arXiv 2108.10808."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import load, loads
from compiler.factorize import factorize
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


def models(rank: int) -> tuple[Any, Any]:
    plain = random(compile(spec(NAME, defaults__linear="matrix")))
    return plain, factorize(plain, spec(NAME, dims__rank=rank))


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


@torch.no_grad()
def test_thin_matrices_are_the_nearest_of_their_rank() -> None:
    """By Eckart and Young, the distance is what the singular values beyond the rank have."""
    plain, thin = models(16)
    given, found = logical(plain), logical(thin)
    cut = [name.removesuffix(".down.weight") for name in found if name not in given and name.endswith(".down.weight")]
    assert len(cut) == 2 * len(LAYER)
    for path in cut:
        whole, down, up = given[f"{path}.weight"], found[f"{path}.down.weight"], found[f"{path}.up.weight"]
        left = torch.linalg.svdvals(whole)[16:].square().sum().sqrt()
        torch.testing.assert_close((whole - up @ down).norm(), left, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(down.norm(), up.norm())  # balanced
        torch.testing.assert_close(found[f"{path}.up.bias"], given[f"{path}.bias"])
    assert all(torch.equal(found[name], given[name]) for name in found.keys() & given.keys())


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_bert_base_of_full_rank_reproduces_its_outputs(layers: int) -> None:
    changes: dict[str, Any] = {"graph.layers.times": layers, "interface.vocab": 1000}
    plain: Any = compile(load(ZOO / "language/bert_base.yaml", set=changes)).eval()
    whole = load(ZOO / "channel/greenformers_bert_base.yaml", set=changes | {"defaults.linear.rank": 768})
    inputs = TOKENS, torch.zeros_like(TOKENS), torch.ones_like(TOKENS, dtype=torch.bool)
    expected = plain(*inputs)
    torch.testing.assert_close(factorize(plain, whole)(*inputs), expected, atol=1e-4, rtol=1e-4)
    part = factorize(plain, load(ZOO / "channel/greenformers_bert_base.yaml", set=changes)) if layers == 1 else None
    assert part is None or (part(*inputs) - expected).abs().max() > 1e-2


def test_a_model_in_training_stays_in_training() -> None:
    plain = compile(spec(NAME, defaults__linear="matrix"))
    assert factorize(plain.train(), spec(NAME)).training
    assert not factorize(plain.eval(), spec(NAME)).training


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dims__layers": 3}, "the model has no weights for layers.2"),
        ({"dims__layers": 1}, "the spec has no place for layers.1"),
        ({"dims__width": 128}, "the model has no weights for"),
        ({"blocks__layer__channel__bias": False}, "the spec has no place for layers.0.channel.body.down.bias"),
        ({"defaults__linear": {"kind": "lora", "rank": 4}}, "no weights for layers.0.channel.body.down.down"),
    ],
)  # fmt: skip
def test_other_models_are_not_factorized(changes: dict[str, Any], said: str) -> None:
    plain = compile(spec(NAME, defaults__linear="matrix"))
    with pytest.raises(SpecError, match=said):
        factorize(plain, spec(NAME, **changes))


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
