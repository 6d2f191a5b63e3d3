"""KG-R3. Pahuja et al. 2022, arXiv 2212.09724."""

from typing import Any

import pytest
import torch

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.model import compile
from tests.models import perturbed
from tests.zoo.published import spec

pytestmark = pytest.mark.system("kg_retrieve_and_read")
NAME = "structured/kg_retrieve_and_read"
LAYERS, NODES = 3, 12
QUERY = torch.tensor([[1, 2, 3], [4, 5, 6]])
CONTEXT = torch.arange(2 * NODES).reshape(2, NODES) * 13 % 400
EDGES = torch.arange(2 * NODES * NODES).reshape(2, NODES, NODES) % 8
CHAIN = (torch.arange(NODES)[:, None] - torch.arange(NODES)).abs() <= 1  # each node, and the one on either side


def given(adjacency: torch.Tensor, context: torch.Tensor = CONTEXT) -> list[torch.Tensor]:
    return [QUERY, context, adjacency.float().expand(2, -1, -1)[..., None], EDGES]


def reader(**changes: Any) -> Any:
    return perturbed(compile(spec(NAME, **changes))).eval()


@torch.no_grad()
def test_a_node_knows_what_lies_as_many_edges_away_as_there_are_layers() -> None:
    model = reader()
    before = model(*given(CHAIN))
    for changed in (0, 5, 11):
        context = CONTEXT.clone()
        context[:, changed] = 399
        after = model(*given(CHAIN, context))
        moved = (before["nodes"] != after["nodes"]).any(-1).any(0)
        distance = (torch.arange(NODES) - changed).abs()
        assert torch.equal(moved, distance <= LAYERS)
        assert not torch.equal(before["answer"], after["answer"])  # the query reads all of the graph


@torch.no_grad()
def test_what_is_not_reached_gets_no_gradient() -> None:
    with torch.enable_grad():
        model = reader()
        words = model.words.weight
        context = torch.arange(100, 100 + NODES).expand(2, -1)
        model(*given(CHAIN, context))["nodes"][:, 2].sum().backward()
        reached = words.grad[100 : 100 + NODES].any(-1)
    assert torch.equal(reached, torch.arange(NODES) <= 2 + LAYERS)


@torch.no_grad()
def test_a_complete_graph_is_full_attention() -> None:
    full = {"kind": "attention", "heads": "heads", "score_bias": "kinds", "bias": True}
    model, plain = reader(), compile(spec(NAME, blocks__along_edges=full)).eval()
    plain.load_state_dict(model.state_dict())
    complete = torch.ones(NODES, NODES)
    a, b = model(*given(complete)), plain(*given(complete))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(model(*given(CHAIN))["nodes"], a["nodes"], atol=1e-2)


@torch.no_grad()
def test_a_directed_edge_is_read_one_way() -> None:
    model = reader()
    one_way = torch.eye(NODES, dtype=torch.bool)
    one_way[1, 0] = True  # node 1 reads node 0
    context = CONTEXT.clone()
    context[:, 0] = 399
    moved = (model(*given(one_way))["nodes"] != model(*given(one_way, context))["nodes"]).any(-1).any(0)
    assert moved.nonzero().flatten().tolist() == [0, 1]


MASKED = """
archspec: 1
interface: {{kind: backbone, inputs: {{x: {{axes: {{token: n}}, width: 8}}, m: {{axes: {{{axes}}}, width: {width}}}}}}}
graph: [{{name: read, from: x, kind: attention, heads: 2, mask: m}}]
"""


@torch.no_grad()
def test_a_mask_is_of_tokens_or_of_pairs() -> None:
    pairs = perturbed(compile(loads(MASKED.format(axes="a: n, b: n", width=1)))).eval()
    tokens = compile(loads(MASKED.format(axes="token: n", width=1))).eval()
    tokens.load_state_dict(pairs.state_dict())
    x, real = torch.randn(2, 6, 8), torch.arange(6) < 4
    seen = real.float().expand(2, 6)[..., None]
    each = seen[:, None].expand(-1, 6, -1, -1)
    torch.testing.assert_close(pairs(x, each), tokens(x, seen))
    assert pairs(x, torch.zeros_like(each)).isfinite().all()


@pytest.mark.parametrize(("axes", "width"), [("a: n, b: 3", 1), ("a: n, b: n", 2), ("a: 3", 1)])
def test_a_mask_of_something_else_is_refused(axes: str, width: int) -> None:
    with pytest.raises(SpecError, match="one feature for each token of the memory, or for each pair"):
        loads(MASKED.format(axes=axes, width=width))
