"""OnePiece. Dai et al. 2025, arXiv 2509.18091."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import Spec, loads
from compiler.model import compile
from search.cost.price import price
from tests.models import inputs, perturbed
from tests.zoo.published import spec

pytestmark = pytest.mark.system("onepiece")
NAME = "structured/onepiece"
WIDTH, HEADS, BLOCK = 32, 4, 6


def ranker(steps: int, block: int = BLOCK) -> Spec:
    """The ranker with so many rounds of reasoning over blocks of so many tokens, and a head for each round."""
    graph: list[Any] = [
        {"name": "items", "from": "candidates", "kind": "token_embedding", "width": "width"},
        {"name": "did", "from": "history", "weights": "items"},
        {"name": "sequence", "from": ["did", "items"], "kind": "join"},
        {
            "name": "reasoning", "from": ["sequence"] * 5, "kind": "loop", "times": "1 + steps", "body": "reason",
            "share": ["layer_0", "layer_1", "last"], "overrides": {"0": "encode"},
        },
    ]  # fmt: skip
    heads = [{"name": f"task_{n}", "from": f"reasoning.{n + 1}", "kind": "score"} for n in range(steps)]
    candidates = {"axes": {"candidate": block}, "vocab": 500}
    named = {head["name"]: head["name"] for head in heads}
    return spec(NAME, dims__steps=steps, graph=graph + heads, outputs=named, interface__inputs__candidates=candidates,
                interface__inputs__anchors={"axes": {"anchor": 8}, "vocab": 500})  # fmt: skip


def test_each_round_has_a_head_of_its_own_name() -> None:
    assert list(spec(NAME).graph.types) == ["click", "add_to_cart", "order"]
    model = compile(spec(NAME)).eval()
    out = model(*inputs(model.spec, batch=2, length=9))
    assert {name: tuple(score.shape) for name, score in out.items()} == dict.fromkeys(out, (2, 6, 1))
    for steps in (1, 2, 5):
        assert list(ranker(steps).graph.types) == [f"task_{n}" for n in range(steps)]


@pytest.mark.parametrize("block", [2, 6])
def test_a_round_costs_its_block_of_tokens_and_no_parameters(block: int) -> None:
    costs = [price(ranker(steps, block), length=20) for steps in (1, 2, 3, 4)]
    assert {b.parameters - a.parameters for a, b in zip(costs, costs[1:], strict=False)} == {WIDTH + WIDTH + 1}
    for steps, (a, b) in enumerate(zip(costs, costs[1:], strict=False), 2):
        matrices = 2 * (4 * WIDTH * WIDTH + 2 * 4 * WIDTH * WIDTH)  # two layers of four maps and a channel mixer
        read = 2 * 2 * (20 + (1 + steps) * block) * WIDTH  # all that came before, and the block
        assert b.forward - a.forward == 2 * block * (matrices + read + WIDTH)


def naive(model: Any, tokens: Tensor, block: int, steps: int) -> list[Tensor]:
    """The states of each round, from the whole sequence run anew under a mask, without anything kept."""
    state = model.state_dict()

    def linear(x: Tensor, path: str) -> Tensor:
        return F.linear(x, state[f"{path}.weight"], state[f"{path}.bias"])

    def norm(x: Tensor, path: str) -> Tensor:
        return F.layer_norm(x, (WIDTH,), state[f"{path}.weight"], state[f"{path}.bias"])

    count, rows = tokens.shape[1], []
    age = torch.zeros(count, dtype=torch.int64)
    for step in range(1 + steps):
        if step:
            placed = rows[-1] + state[f"reasoning.{step}.step.weight"].view(1, 1, WIDTH)
            tokens = torch.cat([tokens, placed], dim=1)
            age = torch.cat([age, torch.full((block,), step)])
        mask = age[:, None] >= age
        x = tokens
        for layer in (0, 1):
            path = f"reasoning.0.layer_{layer}.body"
            normed = norm(x, f"{path}.normed")
            q, k, v = (
                linear(normed, f"{path}.{name}.linear").unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
            x = x + linear(read, f"{path}.out.linear")
            inner = F.gelu(linear(norm(x, f"{path}.fed.norm"), f"{path}.fed.body.up"))
            x = x + linear(inner, f"{path}.fed.body.down")
        rows.append(norm(x, "reasoning.0.last")[:, -block:])
    return rows[1:]


@torch.no_grad()
def test_what_is_kept_gives_what_the_whole_sequence_gives_under_a_mask() -> None:
    model: Any = perturbed(compile(ranker(3))).eval()
    given = inputs(model.spec, batch=2, length=9)
    by_name = dict(zip(model.spec.graph.inputs, given, strict=True))
    table = model.items.weight
    tokens = torch.cat([table[by_name["history"]], table[by_name["candidates"]]], dim=1)
    out = model(*given)
    for number, rows in enumerate(naive(model, tokens, BLOCK, 3)):
        score = F.linear(rows, *(getattr(model.get_submodule(f"task_{number}").linear, p) for p in ("weight", "bias")))
        torch.testing.assert_close(out[f"task_{number}"], score, atol=1e-4, rtol=1e-4)


def test_a_task_teaches_its_round_and_those_before() -> None:
    model: Any = perturbed(compile(ranker(3)))
    model(*inputs(model.spec, batch=2, length=9))["task_1"].square().sum().backward()
    steps = [model.get_submodule(f"reasoning.{n}.step").weight.grad for n in (1, 2, 3)]
    assert steps[0].any() and steps[1].any() and steps[2] is None
    assert model.items.weight.grad.any()


HEAD = (
    "archspec: 1\ninterface: {kind: backbone, "
    "inputs: {x: {axes: {token: n}, width: 8%s}, y: {axes: {row: 3}, width: 8}}}\n"
)


@torch.no_grad()
def test_attention_without_matrices_is_attention_with_none() -> None:
    given = "graph: [{from: [x, y, y], kind: dot_product_attention, heads: 2}]"
    plain = (
        "graph: [{from: x, kind: attention, heads: 2, memory: y, "
        "linears: {query: no_matrix, key: no_matrix, value: no_matrix, out: no_matrix}}]"
    )
    x, y = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    a, b = (compile(loads(HEAD % "" + text + "\n"))(x, y) for text in (given, plain))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("causal", "node", "said"),
    [
        ("", "{from: [x, y, y], kind: dot_product_attention, heads: 3}", "does not divide into 3 heads"),
        ("", "{from: [x, y, x], kind: dot_product_attention, heads: 2}", "keys y"),
        (", causal: token", "{from: [x, x, x], kind: dot_product_attention, heads: 2}", "whole sequences"),
        (", causal: token", "{from: [x, x], kind: join, span: both}", "more than one list along token"),
    ],
)
def test_what_cannot_be_is_refused(causal: str, node: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        loads(HEAD % causal + f"graph: [{node}]\n")
