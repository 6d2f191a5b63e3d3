"""Sentence encoders with an expert for each domain. Kapur et al. 2024, arXiv 2401.15713."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import compiler
from archspec.errors import SpecError
from compiler.logical import logical
from search.cost.price import price
from tests.models import inputs
from tests.zoo.published import build, parameters, random, spec

pytestmark = pytest.mark.system("moe_sentence_embeddings")
NAME = "mixture/moe_sentence_embeddings"
DOMAINS, LAYERS, WIDTH = 3, 2, 64
MLP = 2 * 4 * WIDTH**2 + 5 * WIDTH


def dense() -> Any:
    return random(build(NAME, blocks__layer__channel="dense"))


def sentences() -> list[torch.Tensor]:
    """Ids, the domain of each sentence, and which tokens are real."""
    tokens, _, valid = inputs(spec(NAME), batch=6, length=12)
    return [tokens, torch.arange(6)[:, None].expand(6, 12) % DOMAINS, valid]


@torch.no_grad()
def test_after_upcycling_each_domain_has_the_dense_model() -> None:
    source = dense()
    model: Any = compiler.upcycle(source, spec(NAME))
    tokens, domains, valid = sentences()
    assert not valid.all()
    expected = source(tokens, domains, valid)
    for domain in range(DOMAINS):
        found = model(tokens, torch.full_like(domains, domain), valid)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_parameters_grow_by_the_copies_and_operations_stay() -> None:
    source, model = dense(), build(NAME)
    assert parameters(model) - parameters(source) == (DOMAINS - 1) * LAYERS * MLP
    sparse, plain = price(spec(NAME), length=64), price(spec(NAME, blocks__layer__channel="dense"), length=64)
    weighing = LAYERS * 64 * 2 * WIDTH  # what an expert says is multiplied by one
    assert sparse.forward - plain.forward == weighing < plain.forward / 100


def test_a_contrastive_step_on_a_domain_changes_its_experts_alone() -> None:
    source = dense()
    model: Any = compiler.upcycle(source, spec(NAME)).train()
    before = {name: value.clone() for name, value in logical(model).items()}
    tokens, _, valid = sentences()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    left, right = (
        F.normalize(model(ids, torch.full_like(ids, 1), valid).flatten(1), dim=-1)
        for ids in (tokens, tokens.roll(1, 1))
    )
    F.cross_entropy(left @ right.T / 0.1, torch.arange(6)).backward()
    optimizer.step()
    changed = {name for name, value in logical(model).items() if not torch.equal(value, before[name])}
    experts = {name.split(".experts.")[1].split(".")[0] for name in changed if ".experts." in name}
    assert experts == {"1"}
    assert sum(".experts." in name for name in changed) == LAYERS * 4 and any(".mixer." in name for name in changed)


@torch.no_grad()
def test_a_batch_of_many_domains_is_what_single_models_say() -> None:
    model = random(build(NAME))
    tokens, domains, valid = sentences()
    together, weights = model(tokens, domains, valid), logical(model)
    outputs = []
    for domain in range(DOMAINS):
        single: Any = build(NAME, blocks__layer__channel="dense")
        for name, weight in logical(single).items():
            expert = name.replace(".channel.body.", f".channel.body.experts.{domain}.")
            weight.copy_(weights[expert if expert in weights else name])
        outputs.append(single(tokens, domains, valid))
    expected = torch.stack([outputs[domain][row] for row, domain in enumerate(domains[:, 0].tolist())])
    torch.testing.assert_close(together, expected, atol=1e-5, rtol=1e-5)
    assert (outputs[0] - outputs[1]).abs().max() > 0.1


def test_sentences_without_a_domain_are_refused() -> None:
    with pytest.raises(SpecError, match="tokens carry no label 'domain'"):
        spec(NAME, interface__labels={"topic": 3})
