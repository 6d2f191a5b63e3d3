"""Brainformer. Zhou et al. 2023, arXiv 2306.00008."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from archspec.spec import Spec
from search.cost.price import Cost, price
from spaces.space import Space
from spaces.space import load as load_space
from tests.zoo.published import ZOO, build, parameters, random, spec

pytestmark = pytest.mark.system("brainformer")

TOKENS = torch.arange(2 * 32).reshape(2, 32) * 5 % 256
LISTS: dict[str, list[Any]] = {
    "as in the example": [
        "attend",
        "sparse",
        {"kind": "dense", "hidden": 256},
        {"kind": "sparse", "hidden": 96, "experts": 16, "k": 1},
    ],
    "one layer": ["attend"],
    "no attention": ["dense", "sparse", "dense"],
    "sparse first": [{"kind": "sparse", "experts": 3, "k": 3}, {"kind": "sparse", "hidden": 8}, "attend", "attend"],
    "lists in lists": [["attend", "dense"], [["sparse"], "attend"]],
}
SPACE = """
archspace: 1
extends: {}
blocks:
  item:
    choose:
      - attend
      - {{kind: dense, hidden: {{choose: [96, 192, 384]}}}}
      - {{kind: sparse, hidden: {{choose: [96, 192]}}, experts: {{choose: [4, 8, 16]}}, k: {{choose: [1, 2]}}}}
graph:
  - {{kind: token_embedding, width: width}}
  - {{name: blocks, kind: repeat, times: 4, vary: each, body: item}}
  - layer_norm
  - lm_head
"""


def cost(block: list[Any]) -> Cost:
    return price(spec("brainformer", blocks__block=block), length=32, device="h100_sxm")


@pytest.mark.parametrize("block", LISTS.values(), ids=LISTS)
def test_any_list_is_a_block(block: list[Any]) -> None:
    model = random(build("brainformer", blocks__block=block)).train()
    found = model(TOKENS)
    logits, loss = (found["lm_head"], found["loss"]) if isinstance(found, dict) else (found, 0)
    assert logits.shape == (2, 32, 256)
    assert isinstance(found, dict) == ("sparse" in str(block))
    (logits.square().mean() + loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_order_of_layers_is_part_of_the_structure_and_costs_the_same() -> None:
    there, back = ["attend", "sparse", "dense"], ["dense", "sparse", "attend"]
    assert spec("brainformer", blocks__block=there).structure != spec("brainformer", blocks__block=back).structure
    assert cost(there).parameters == cost(back).parameters
    assert cost(there).forward == cost(back).forward


def test_active_parameters_leave_out_the_experts_that_a_token_does_not_meet() -> None:
    found = price(spec("brainformer"), length=32, device="h100_sxm")
    assert found.parameters == parameters(build("brainformer", device="meta"))
    unmet = 2 * ((8 - 2) * 3 * 96 * 192 + (16 - 1) * 3 * 96 * 96)
    assert found.active == found.parameters - unmet
    dense = cost(["attend", "dense"])
    assert dense.active == dense.parameters


def test_layers_keep_their_own_widths_and_routers() -> None:
    block = spec("brainformer").graph.node("blocks").bodies["rounds.0"]
    sparse = [
        node.bodies["body"].nodes[0] for node in block.nodes if node.bodies["body"].nodes[0].kind.name_ == "mixture"
    ]
    shapes = [(node.kind.size(node), node.bodies["router"].nodes[0].kind.k) for node in sparse]
    assert shapes == [(8, 2), (16, 1)]


@pytest.fixture
def space(tmp_path: Path) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.format(ZOO / "brainformer.yaml"))
    return load_space(path)


def test_a_space_searches_order_kinds_widths_and_routers(space: Space) -> None:
    options = 1 + 3 + 2 * 3 * 2  # attention; widths of a dense layer; widths, experts and k of a sparse one
    assert space.cardinality() == (options**4, options**4)
    rng = Random(0)
    specs = [space.sample(rng).spec for _ in range(40)]
    assert len({found.structure for found in specs}) > 35
    assert {len(set(kinds(found))) for found in specs} == {1, 2, 3}
    costs = [price(found, length=32, device="h100_sxm") for found in specs[:10]]
    for found, cost in zip(specs, costs, strict=False):
        assert (cost.active < cost.parameters) == ("mixture" in kinds(found))


def kinds(of: Spec) -> list[str]:
    """What the layers are, in their order."""
    return [body.nodes[0].bodies["body"].nodes[0].kind.name_ for body in of.graph.node("blocks").bodies.values()]
