"""MORES. Gao, Dai and Callan 2020, arXiv 2004.13313."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from archspec.errors import SpecError
from compiler.model import compile
from search.cost.operators import FORMULAS
from search.cost.price import price
from tests.models import inputs, perturbed
from tests.zoo.published import parameters, spec

pytestmark = pytest.mark.system("mores_ranker")
NAME = "structured/mores_ranker"
LENGTHS = {"query_length": 7, "document_length": 20}


def ranker() -> Any:
    return perturbed(compile(spec(NAME))).eval()


@torch.no_grad()
def test_stored_document_states_and_the_interaction_are_the_whole_ranker() -> None:
    model = ranker()
    query, document, query_valid, document_valid = inputs(model.spec, batch=3, length=LENGTHS)
    offline = model.entries["encode_document"](document, document_valid)
    asked = model.entries["encode_query"](query, query_valid)
    online = model.entries["interact"](asked, query_valid, offline, document_valid)
    assert torch.equal(online, model(query, document, query_valid, document_valid))
    assert not document_valid.all()
    document[~document_valid] = 0  # padding is not read
    torch.testing.assert_close(model(query, document, query_valid, document_valid), online)


@torch.no_grad()
def test_one_query_ranks_many_stored_documents() -> None:
    model = ranker()
    query, documents, query_valid, document_valid = inputs(model.spec, batch=4, length=LENGTHS)
    offline = model.entries["encode_document"](documents, document_valid)
    one, real = query[:1], query_valid[:1]
    asked = model.entries["encode_query"](one, real).expand(4, -1, -1)
    found = model.entries["interact"](asked, real.expand(4, -1), offline, document_valid)
    expected = torch.cat([model(one, documents[n : n + 1], real, document_valid[n : n + 1]) for n in range(4)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["encode_document", "encode_query", "interact"])
def test_a_part_is_priced_as_torch_counts_it(name: str) -> None:
    whole = spec(NAME)
    part = whole.part(name)
    cost = price(part, batch=2, device="l4")
    model: Any = compile(whole, device="meta").eval()
    given = inputs_of(part)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        model.entries[name](*given)
    assert cost.forward == counter.get_total_flops() > 0


def inputs_of(part: Any) -> list[torch.Tensor]:
    """Tensors on the meta device for a part: its streams at their longest, and which tokens are real."""
    given = []
    for stream in part.graph.inputs.values():
        tokens = {"query": 16, "document": 64}[stream.axes[0].name]
        shape = (2, tokens) if stream.content == "ids" else (2, tokens, stream.width)
        given.append(torch.empty(shape, device="meta", dtype=torch.int64 if stream.content == "ids" else None))
        given.append(torch.ones(2, tokens, device="meta", dtype=torch.bool))
    return given


def test_parts_make_up_the_whole_and_online_costs_are_told_alone() -> None:
    whole = spec(NAME)
    document, query, interact = (whole.part(name) for name in ("encode_document", "encode_query", "interact"))
    flops = {part.name: price(part, device="l4").forward for part in (document, query, interact)}
    assert sum(flops.values()) == price(whole, device="l4").forward
    online = flops[query.name] + flops[interact.name]
    assert online < price(whole, device="l4").forward / 2
    parts = sum(price(part).parameters for part in (document, query, interact))
    shared = price(spec(NAME, dims__lower=3)).parameters - price(whole).parameters
    assert parts - price(whole).parameters == 2 * shared  # the two lower layers are in both encoders
    assert document.structure != query.structure


def test_query_and_document_share_their_lower_layers() -> None:
    model = compile(spec(NAME), device="meta")
    layer = 4 * (64 * 64 + 64) + (64 * 256 + 256) + (256 * 64 + 64) + 2 * 128
    embedding = {"query": (256 + 16) * 64 + 128, "document": (256 + 64) * 64 + 128}
    interaction = layer + 4 * (64 * 64 + 64) + 128
    assert parameters(model) == sum(embedding.values()) + 4 * layer + 2 * interaction + 64 * 2 + 2


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(SpecError, match="no part 'interacts'\n.*did you mean interact"):
        spec(NAME).part("interacts")
