"""Folding a finished norm: equal outputs, and nothing left of it before a matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import compiler
from archspec.spec import load, loads
from compiler.modules.batch_norm import Statistics
from compiler.moving import move
from search.data.digits import Digits
from search.recipe import Recipe
from search.train import train
from tests.models import inputs, perturbed
from tests.specs import EXAMPLES

SLAB = load(EXAMPLES / "folding_norm.yaml")


def norms(model: Any) -> list[str]:
    """The norms that a graph computes, with their parameters."""
    found = []
    for node in model.graph.nodes:
        if node.op == "call_module" and isinstance(model.get_submodule(node.target), Statistics):
            found.append("batch")
        if node.op == "call_function" and node.target in (F.layer_norm, F.rms_norm):
            found.append(" ".join(name for name in ("weight", "bias") if node.kwargs.get(name) is not None))
    return found


def small(body: str, rest: str = "") -> Any:
    head = "archspec: 1\ninterface: {kind: causal_lm, vocab: 32, length: 16}\ngraph:\n"
    text = f"{head}  - {{kind: token_embedding, width: 16}}\n  - {body}\n{rest}  - lm_head\n"
    return perturbed(compiler.compile(loads(text))).eval()


def test_a_norm_that_was_trained_away_folds_and_says_the_same() -> None:
    model = compiler.compile(SLAB)
    data = Digits().open(SLAB.interface)
    train(model, data, Recipe(steps=60, batch=32, learning_rate=1e-2))
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = compiler.fold(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert norms(compiler.flatten(compiler.settle(model))) == ["batch"] * 5
    assert norms(folded) == ["batch"]  # its reader is the pool, not a matrix
    assert not any(node.target in (F.layer_norm, F.rms_norm) for node in folded.graph.nodes)
    (batch,) = (one.inputs for one in data.validation(size=64, length=None, batches=1))
    with torch.no_grad():
        expected, found = model(**batch), folded(**batch)
    assert (expected - found).abs().max() < 1e-5 < 0.1 < expected.abs().max()
    assert (expected.argmax(-1) == found.argmax(-1)).all()


def test_before_the_first_step_it_is_the_model_with_a_layer_norm() -> None:
    model = compiler.compile(SLAB)
    move(model, 0)
    plain = compiler.compile(load(EXAMPLES / "folding_norm.yaml", set={"blocks.norm": {"kind": "layer_norm"}}))
    names = {name: name.replace("norm.", "norm.first.", 1) for name, _ in plain.named_parameters() if "norm." in name}
    weights = dict(model.named_parameters())
    for name, parameter in plain.named_parameters():
        source = weights.get(
            name, weights.get(names.get(name, name), weights.get(name.replace("norm.", "norm.first.")))
        )
        if source is None:  # the last norm is called as its kind
            source = next(value for key, value in weights.items() if key.endswith(f".first.{name.split('.')[-1]}"))
        parameter.data = source.data
    given = inputs(SLAB, batch=3, length=1)
    assert torch.equal(model(*given), plain(*given))
    assert torch.equal(model.eval()(*given), plain.eval()(*given))


@pytest.mark.parametrize(
    ("body", "left"),
    {
        "{kind: residual, norm: layer_norm, body: {kind: attention, heads: 2, bias: true}}": [""],
        "{kind: residual, norm: {kind: rms_norm, offset: 1.0}, body: {kind: glu, hidden: 8}}": [""],
        "{kind: residual, norm: batch_norm, body: {kind: mlp, ratio: 1}}": [],
        "{kind: residual, norm: {kind: batch_norm, skip: true}, body: {kind: mlp, ratio: 1, bias: true}}": [],
        "{kind: residual, place: after, norm: batch_norm, body: {kind: mlp, ratio: 1}}": [],  # into the one before
        "{kind: residual, place: after, norm: batch_norm, body: {kind: mlp, ratio: 1, bias: true}}": [],
        "{kind: residual, place: after, norm: layer_norm, body: {kind: mlp, ratio: 1}}": ["weight bias"],
        "{kind: residual, place: post, norm: batch_norm, body: {kind: mlp, ratio: 1}}": [],  # the head reads it
        "{kind: loop, times: 2, body: {kind: residual, norm: layer_norm, body: {kind: mlp, ratio: 1}}}": ["", ""],
        "{kind: residual, norm: layer_norm, body: {kind: mlp, ratio: 1, linear: {kind: low_rank, rank: 4}}}": [""],
    }.items(),
)  # fmt: skip
def test_what_folds_and_what_stays(body: str, left: list[str]) -> None:
    model = small(body)
    given = inputs(model.spec, batch=2, length=8)
    folded = compiler.fold(model)
    assert norms(folded) == left or "low_rank" in body
    torch.testing.assert_close(folded(*given), model(*given), atol=2e-6, rtol=1e-5)
    assert not folded.training and norms(compiler.flatten(model)) != norms(folded) or left == ["weight bias"]


def test_a_norm_whose_readers_are_more_than_matrices_stays() -> None:
    model = small(
        "{name: n, kind: layer_norm}", "  - {from: n, kind: glu, hidden: 8}\n  - {from: [n, glu], kind: combine}\n"
    )
    folded = compiler.fold(model)
    given = inputs(model.spec, batch=2, length=8)
    assert norms(folded) == ["weight bias"] and torch.equal(folded(*given), model(*given))


def test_the_model_itself_and_shared_matrices_stay_as_they_are() -> None:
    model = small("{kind: loop, times: 2, body: {kind: residual, norm: batch_norm, body: {kind: mlp, ratio: 1}}}")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    given = inputs(model.spec, batch=2, length=8)
    expected = model(*given)
    folded = compiler.fold(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(*given), expected) and not torch.equal(folded(*given), expected)
    torch.testing.assert_close(folded(*given), expected)


def test_the_head_that_is_tied_to_the_embedding_gets_a_matrix_of_its_own() -> None:
    spec = loads(
        "archspec: 1\ninterface: {kind: causal_lm, vocab: 32, length: 16}\n"
        "graph: [{kind: token_embedding, width: 16}, batch_norm, {kind: lm_head, tied: true}]\n"
    )
    model = perturbed(compiler.compile(spec)).eval()
    given = inputs(spec, batch=2, length=8)
    folded = compiler.fold(model)
    assert norms(folded) == []
    torch.testing.assert_close(folded(*given), model(*given), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_batch_norm_is_that_of_torch(padded: bool) -> None:
    spec = loads(
        f"archspec: 1\ninterface: {{kind: masked_lm, vocab: 32, length: 16, padding: {str(padded).lower()}}}\n"
        "graph: [{kind: token_embedding, width: 16}, {kind: batch_norm, momentum: 0.3}, lm_head]\n"
    )
    model = compiler.compile(spec)
    mine = next(module for module in model.modules() if isinstance(module, Statistics))
    torchs = nn.BatchNorm1d(16, momentum=0.3)
    with torch.no_grad():
        for one, other in ((mine.weight, torchs.weight), (mine.bias, torchs.bias)):
            one.copy_(other.copy_(torch.randn(16)))
    for step in range(3):
        x = torch.randn(4, 8, 16) * (step + 1) + step
        valid = torch.arange(8)[None] < torch.tensor([8, 5, 3, 1])[:, None] if padded else torch.ones(4, 8).bool()
        y = mine(x, valid if padded else None)
        torch.testing.assert_close(y[valid], torchs(x[valid]))
    torch.testing.assert_close(mine.running_mean, torchs.running_mean)
    torch.testing.assert_close(mine.running_var, torchs.running_var)
    x = torch.randn(4, 8, 16)
    torch.testing.assert_close(mine.eval()(x, None), torchs.eval()(x.transpose(1, 2)).transpose(1, 2))
    scale, shift = mine.affine()
    torch.testing.assert_close((scale * x + shift).float(), mine(x, None))


def test_several_processes_refuse_a_batch_norm() -> None:
    from archspec.errors import SpecError
    from search.distributed import sharding

    with pytest.raises(SpecError, match="samples share their statistics"):
        sharding.check(SLAB)
