"""PartialFormer. Zheng et al. 2023, arXiv 2310.14921."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from compiler.logical import logical
from search.cost.price import price
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("partialformer")
NAME = "channel/partialformer"
WIDTH, GROUPS, INNER, LAYERS = 64, 4, 64, 3
TOKENS = torch.arange(24).reshape(2, 12) * 7 % 256


def layer(x: Tensor, state: dict[str, Tensor], at: str, before: Tensor | float) -> tuple[Tensor, Tensor]:
    """A layer head by head, and the scores of its heads."""
    read = F.layer_norm(x, (WIDTH,), state[f"{at}.read.weight"], state[f"{at}.read.bias"])
    size, made, scores = WIDTH // GROUPS, [], []
    for head in range(GROUPS):
        rows = slice(head * size, (head + 1) * size)
        q, k, v = (read @ state[f"{at}.heads.{role}.weight"][rows].T for role in ("query", "key", "value"))
        mine = q @ k.mT / size**0.5 + (before[:, head] if isinstance(before, Tensor) else 0)
        y = mine.softmax(-1) @ v
        inner = (y @ state[f"{at}.parts.up.weight"][head]).relu()
        made.append(inner @ state[f"{at}.parts.down.weight"][head])
        scores.append(mine)
    return x + torch.cat(made, -1) @ state[f"{at}.whole.linear.weight"].T, torch.stack(scores, 1)


@torch.no_grad()
def test_equals_its_definition() -> None:
    model: Any = random(build(NAME))
    state = logical(model)
    x, scores = state["words.weight"][TOKENS] + state["places.weight"][:12], 0.0
    for at in ("begin", "layers.0", "layers.1"):
        x, scores = layer(x, state, at, scores)  # type: ignore[assignment]
    expected = F.layer_norm(x, (WIDTH,), state["last.weight"], state["last.bias"]) @ state["words.weight"].T
    torch.testing.assert_close(model(TOKENS), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("groups", "inner"), [(2, 32), (4, 64), (8, 48)])
def test_parts_have_two_matrices_a_group(groups: int, inner: int) -> None:
    model = build(NAME, device="meta", dims__groups=groups, dims__inner=inner)
    found = sum(value.numel() for name, value in logical(model).items() if ".parts." in name)
    assert found == LAYERS * 2 * groups * (WIDTH // groups) * inner


def test_many_narrow_mixers_are_smaller_than_a_wide_one() -> None:
    narrow, wide = (spec(NAME, blocks__think__linear=linear) for linear in
                    ({"kind": "block_diagonal", "groups": GROUPS}, "matrix"))  # fmt: skip
    costs = [price(one, length=64) for one in (narrow, wide)]
    saved = LAYERS * 2 * WIDTH * GROUPS * INNER * (GROUPS - 1) // GROUPS
    assert costs[1].parameters - costs[0].parameters == saved
    assert costs[1].forward - costs[0].forward == 2 * 64 * saved


@torch.no_grad()
def test_a_layer_without_queries_reads_by_the_scores_before() -> None:
    """Where queries of a layer are zero, it reads by the scores of the layer before."""
    model: Any = random(build(NAME))
    state = logical(model)
    state["layers.0.heads.query.weight"].zero_()
    x = state["words.weight"][TOKENS] + state["places.weight"][:12]
    x, first = layer(x, state, "begin", 0.0)
    _, second = layer(x, state, "layers.0", first)
    torch.testing.assert_close(second, first)
    with_scores = model(TOKENS)
    state["begin.heads.key.weight"].zero_()
    assert (model(TOKENS) - with_scores).abs().max() > 1e-3


def test_parameters_in_all() -> None:
    assert parameters(build(NAME, device="meta")) == (
        256 * WIDTH + 128 * WIDTH + LAYERS * (4 * WIDTH**2 + 2 * WIDTH * INNER + 2 * WIDTH) + 2 * WIDTH
    )


def test_scores_of_other_numbers_of_heads_are_refused() -> None:
    with pytest.raises(SpecError, match="score_bias"):
        spec(NAME, blocks__first={"inputs": ["x"], "graph": [
            {"name": "heads", "from": "x", "kind": "attention", "heads": 2}], "outputs": {
                "x": "heads", "scores": "heads.scores"}})  # fmt: skip


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(SpecError, match="does not divide"):
        spec(NAME, dims__groups=5)
