"""Transformer programs. Friedman, Wettig and Chen 2023, arXiv 2306.01128."""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from archspec.errors import SpecError
from archspec.spec import loads
from compiler.model import compile
from compiler.moving import move, settle
from compiler.program import program
from tests.models import perturbed
from tests.zoo.published import spec

pytestmark = pytest.mark.system("transformer_programs")
NAME = "structured/transformer_programs"


def run(source: str, tokens: Tensor) -> Tensor:
    """What a program gives for each of some sequences."""
    names: dict[str, Any] = {}
    exec(source, names)
    return torch.tensor([names["program"](row) for row in tokens.tolist()])


def every(length: int) -> Tensor:
    return torch.tensor(list(product(range(8), repeat=length)))


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_the_program_agrees_with_the_model_on_every_input(seed: int) -> None:
    model = perturbed(compile(spec(NAME), seed=seed), seed=seed).eval()
    source = program(model)
    for tokens in (every(3), torch.randint(0, 8, (200, 8), generator=torch.Generator().manual_seed(seed))):
        said = model(tokens).argmax(-1)
        assert torch.equal(run(source, tokens), said)
        assert len(said.unique()) > 1


def backwards(count: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(0, 8, (count, 8))
    return tokens, tokens.flip(1)


def test_it_trains_while_it_is_soft_and_is_then_a_program_that_reverses() -> None:
    torch.manual_seed(0)
    model: Any = compile(spec(NAME), seed=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    steps = 300
    for step in range(steps):
        move(model, step / (steps - 1) * 0.94)
        tokens, target = backwards(64)
        loss = F.cross_entropy(model(tokens).flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not step:
            assert all(parameter.grad.any() for parameter in model.parameters())
            first = loss.item()
    assert loss.item() < 0.3 * first
    hard = settle(model).eval()
    with torch.no_grad():
        tokens, target = backwards(200)
        said = hard(tokens).argmax(-1)
    assert torch.equal(run(program(hard), tokens), said)
    assert (said == target).float().mean() > 0.9


@torch.no_grad()
def test_choices_harden_as_the_temperature_falls() -> None:
    model: Any = perturbed(compile(spec(NAME, outputs={"variables": "layers"}))).eval()
    tokens, apart = every(3)[::7], []
    for progress in (0.0, 0.5, 0.9):
        move(model, progress)
        shares = model(tokens).unflatten(-1, (-1, 16))
        torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:-1]), atol=1e-4, rtol=0)
        apart.append(1 - shares.amax(-1).mean().item())
    move(model, 1.0)
    shares = model(tokens).unflatten(-1, (-1, 16))
    assert set(shares.unique().tolist()) == {0.0, 1.0}
    assert apart == sorted(apart, reverse=True) and apart[0] > 0.2


@torch.no_grad()
def test_layers_add_variables_and_change_none() -> None:
    model: Any = perturbed(compile(spec(NAME, outputs={"before": "variables", "after": "layers"}))).eval()
    out = model(every(3))
    assert torch.equal(out["after"][..., :32], out["before"])
    assert out["after"].shape[-1] == 16 * (2 + 2 * (4 + 2))


@torch.no_grad()
def test_a_head_reads_the_nearest_match() -> None:
    text = (
        "archspec: 1\ninterface: {kind: masked_lm, vocab: 4, length: 4}\ngraph:\n"
        "  - one_hot\n  - {name: head, kind: categorical_attention, heads: 1, values: 4, temperature: 0}\n"
    )
    model: Any = compile(loads(text)).eval()
    head = model.head.read
    head.predicate.copy_(torch.eye(4).roll(1, 1)[None])  # each value looks for the next one
    said = model(torch.tensor([[1, 0, 1, 3], [2, 0, 2, 0], [0, 3, 3, 3]])).argmax(-1)
    # 1 finds no 2 and reads its nearest other, the earlier first; 0 finds the nearest 1; 3 finds the nearest 0
    assert said.tolist() == [[0, 1, 0, 0], [0, 2, 0, 2], [3, 0, 0, 0]]


HEAD = "archspec: 1\ninterface: {kind: %s, vocab: 8, length: 8}\ngraph:\n  - {kind: one_hot}\n  - %s\n"


@pytest.mark.parametrize(
    ("interface", "node", "said"),
    [
        ("masked_lm", "{kind: categorical_mlp, values: 3}", "not of variables of 3"),
        ("causal_lm", "{kind: categorical_attention, heads: 1, values: 8}", "read both ways"),
        ("masked_lm", "{kind: one_hot_position, values: 4}", "4 values for the places"),
        ("masked_lm", "{from: tokens, kind: one_hot, values: 4}", "4 values for ids below 8"),
        ("masked_lm", "{kind: one_hot}", "made of ids"),
    ],
)
def test_what_cannot_be_is_refused(interface: str, node: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        loads(HEAD % (interface, node))


def test_what_is_no_program_is_refused() -> None:
    with pytest.raises(SpecError, match="layer_norm is no part of a program"):
        program(compile(loads(HEAD % ("masked_lm", "layer_norm"))))
